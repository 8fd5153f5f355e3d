/* The monitor's page. Plain ES5: it has to run on old panels. Everything that comes from the
   line goes into the page as text, never as markup. */
(function () {
  "use strict";
  var $ = Tools.$, text = Tools.text, make = Tools.make, draw = Tools.draw, clear = Tools.clear,
    whole = Tools.whole, plural = Tools.plural, percent = Tools.percent, score = Tools.score,
    limit = Tools.limit, ms = Tools.ms, clock = Tools.clock, ask = Tools.ask,
    PATIENCE = Tools.PATIENCE;
  var EVERY = 1000, HOLD = 3000;
  var state = null, heard = 0, shown = {}, timer = null, held = 0, viewing = null;

  /* ---- asking again and again; nothing is asked while nobody looks ---- */

  function poll() {
    timer = null;
    if (document.hidden) { return; }
    ask("GET", "/state.json", null, function (status, answer) {
      if (status === 200) {
        state = JSON.parse(answer);
        heard = Date.now();
        render();
      }
      pulse();
      if (timer === null) { timer = window.setTimeout(poll, EVERY); }
    });
  }

  document.addEventListener("visibilitychange", function () {
    if (!document.hidden && timer === null) { poll(); }
  });
  window.setInterval(pulse, 1000);

  function pulse() {
    var node = $("pulse"), lost = heard > 0 && Date.now() - heard > PATIENCE;
    $("main").className = lost ? "stale" : state ? "" : "waiting";
    if (!state) { return; }
    if (lost) {
      node.className = "pulse lost";
      text(node, "no answer since " + clock(heard / 1000) + ": run ended, or no network");
      return;
    }
    var quiet = state.idle || 0;
    node.className = quiet > 10 ? "pulse lost" : "pulse live";
    text(node, quiet > 10 ? "no frame for " + whole(quiet) + " s"
      : "running, " + state.fps.toFixed(1) + " frames/s");
  }

  /* ---- one answer onto the page ---- */

  function render() {
    if (shown.run !== state.run) { shown = { run: state.run }; }
    text($("names"), state.source + (state.bundle ? " · bundle " + state.bundle : ""));
    newest();
    ticks();
    numbers();
    Scores.show(state);
    strip("rejects", state.rejects, "No rejects yet.");
    strip("last", state.last, "No frames yet.");
    foot();
  }

  function address(shot, kind) {
    return "/shot/" + state.run + "/" + shot.number + "/" + kind + ".jpg";
  }

  function has(shot, kind) { return shot.pictures.indexOf(kind) >= 0; }

  function best(shot) { return has(shot, "marked") ? "marked" : has(shot, "photo") ? "photo" : null; }

  function picture(image, shot, kind) {
    image.hidden = !kind || !has(shot, kind);
    if (!image.hidden) {
      var path = address(shot, kind);
      if (image.getAttribute("src") !== path) { image.setAttribute("src", path); }
      image.setAttribute("alt", kind === "heat" ? "Heat map of " + shot.frame : shot.frame);
    }
  }

  /* On a fast line a reject is gone before anyone has looked up: a new one stays for a while. */
  function chosen() {
    var reject = state.rejects[0], number = reject ? reject.number : 0;
    if (shown.reject !== undefined && shown.reject !== number) { held = Date.now() + HOLD; }
    shown.reject = number;
    return reject && Date.now() < held ? reject : state.last[0];
  }

  function newest() {
    var shot = chosen();
    if (!shot) { return; }
    text($("caption"), shot.number < state.last[0].number ? "last reject, shown for 3 s" : "newest frame");
    var rejected = shot.verdict === "reject", tall = shot.size ? 100 * shot.size[1] / shot.size[0] : 80;
    /* both pictures in the frame's own shape, within reason */
    $("hold1").style.paddingTop = $("hold2").style.paddingTop =
      Math.max(40, Math.min(tall, 100)).toFixed(1) + "%";
    $("verdict").className = "verdict " + (rejected ? "reject" : "ok");
    text($("sign"), rejected ? "✕" : "✓");
    text($("word"), rejected ? "REJECT" : "OK");
    text($("score"), shot.error ? "not judged"
      : score(shot.score) + (rejected ? " > " : " ≤ ") + limit(shot.threshold));
    text($("frame"), clock(shot.time) + "  " + shot.frame);
    picture($("marked"), shot, best(shot));
    picture($("heat"), shot, "heat");
    text($("unseen"), best(shot) ? "" : shot.error || "no picture");
  }

  function ticks() {
    var svg = $("ticks"), marks = state.ticks, n = 120, step = 100 / n, i, bad;
    if (shown.ticks === marks + state.frames) { return; }
    shown.ticks = marks + state.frames;
    clear(svg);
    svg.setAttribute("viewBox", "0 0 100 26");
    svg.setAttribute("preserveAspectRatio", "none");
    for (i = 0; i < marks.length; i += 1) {
      bad = marks.charAt(i) === "r";
      draw(svg, "rect", {
        x: (n - marks.length + i) * step, width: 0.72 * step,
        y: bad ? 0 : 16, height: bad ? 26 : 10, fill: bad ? "#c2500a" : "#8fb7d2"
      });
    }
    text($("tickwords"), "the last " + plural(marks.length, "verdict", "verdicts") +
      "; tall is a reject");
    text($("row"), state.in_a_row > 2 ? whole(state.in_a_row) + " rejects in a row" : "");
  }

  function numbers() {
    var recent = state.recent, times = state.latency_ms, missed = state.dropped + state.not_judged;
    var parts = [], why;
    text($("rate"), recent.n ? percent(recent.reject / recent.n) : "–");
    text($("rateof"), whole(recent.reject) + " of the last " + whole(recent.n));
    text($("p50"), times ? ms(times.p50) + " ms" : "–");
    text($("tail"), times ? "95 % within " + ms(times.p95) + " ms, 99 % within " +
      ms(times.p99) + " ms" : "");
    text($("frames"), whole(state.frames));
    text($("fps"), whole(state.reject) + " rejected since the start");
    text($("missed"), whole(missed));
    for (why in state.drops) { parts.push(whole(state.drops[why]) + " " + why); }
    if (state.not_judged) { parts.push(whole(state.not_judged) + " unreadable"); }
    if (state.deadline_ms !== null) { parts.push(whole(state.late) + " late"); }
    text($("missedof"), parts.length ? parts.join(", ") : "every frame was judged");
    $("missedcard").className = "card number" + (missed ? " bad" : "");
  }

  /* ---- strips, and one frame at large ---- */

  function strip(id, shots, nothing) {
    var box = $(id), mark = shots.map(function (shot) { return shot.number; }).join();
    if (shown[id] === mark) { return; }
    shown[id] = mark;
    clear(box);
    if (!shots.length) { box.appendChild(make("p", "nothing", nothing)); }
    shots.forEach(function (shot, index) { box.appendChild(thumb(shots, index)); });
  }

  function thumb(shots, index) {
    var shot = shots[index], button = make("button", "shot " + shot.verdict);
    var hold = make("div", "hold"), image = make("img");
    button.type = "button";
    if (best(shot)) {
      picture(image, shot, best(shot));
      hold.appendChild(image);
    } else {
      hold.appendChild(make("span", "unseen", "no picture"));
    }
    button.appendChild(hold);
    button.appendChild(make("span", "", (shot.verdict === "reject" ? "✕ " : "✓ ") +
      (shot.error ? "not judged" : score(shot.score))));
    button.appendChild(make("span", "", clock(shot.time)));
    button.appendChild(make("span", "", shot.frame));
    button.title = shot.frame;
    button.addEventListener("click", function () { open(shots, index, null); });
    return button;
  }

  function open(shots, index, kind) {
    var shot = shots[index], kinds = $("vkinds"), image = $("vpicture");
    var names = { photo: "photo", marked: "defects", heat: "heat map" };
    kind = kind && has(shot, kind) ? kind : best(shot);
    viewing = { shots: shots, index: index, kind: kind };
    $("viewer").hidden = false;
    $("vword").className = "vword " + shot.verdict;
    text($("vword"), shot.verdict === "reject" ? "✕ REJECT" : "✓ OK");
    text($("vname"), shot.frame);
    text($("vgone"), kind ? "" : "There is no picture of this frame.");
    picture(image, shot, kind);
    text($("vfacts"), clock(shot.time) + ", " + (shot.error ? "not judged: " + shot.error
      : "score " + score(shot.score) + ", threshold " + limit(shot.threshold) + ", " +
        plural(shot.defects, "region", "regions") + " above it") + (shot.late ? ", late" : ""));
    clear(kinds);
    shot.pictures.forEach(function (one) {
      var button = make("button", one === kind ? "on quiet" : "quiet", names[one]);
      button.type = "button";
      button.addEventListener("click", function () { open(shots, index, one); });
      kinds.appendChild(button);
    });
    $("vprev").disabled = index === 0;
    $("vnext").disabled = index === shots.length - 1;
  }

  function step(by) {
    var next = viewing.index + by;
    if (viewing.shots[next]) { open(viewing.shots, next, viewing.kind); }
  }

  function shut() { viewing = null; $("viewer").hidden = true; }

  $("vprev").addEventListener("click", function () { step(-1); });
  $("vnext").addEventListener("click", function () { step(1); });
  $("vclose").addEventListener("click", shut);
  $("viewer").addEventListener("click", function (event) { if (event.target === $("viewer")) { shut(); } });
  $("vpicture").addEventListener("error", function () {
    $("vpicture").hidden = true;
    text($("vgone"), "This picture is not kept here any more; it is in the run's folder.");
  });
  document.addEventListener("keydown", function (event) {
    if (!viewing) { return; }
    if (event.keyCode === 27) { shut(); }
    if (event.keyCode === 37) { step(-1); }
    if (event.keyCode === 39) { step(1); }
  });

  /* ---- small print ---- */

  function foot() {
    var turns = $("turns"), parts = [], values = state.gauges, mark = JSON.stringify(state.turns);
    if (shown.turns !== mark) {
      shown.turns = mark;
      clear(turns);
      state.turns.forEach(function (turn) {
        turns.appendChild(make("p", "", clock(turn.time) + " threshold turned from " +
          limit(turn.from) + " to " + limit(turn.to) + " by " + turn.who));
      });
    }
    if (values.waiting !== undefined) { parts.push(whole(values.waiting) + " waiting"); }
    if (values.frames_in_flight !== undefined) { parts.push(whole(values.frames_in_flight) + " in flight"); }
    if (values.reconnects) { parts.push(plural(values.reconnects, "reconnect", "reconnects")); }
    if (values.resident_bytes) { parts.push(whole(values.resident_bytes / 1048576) + " MB"); }
    state.remotes.forEach(function (one) {
      parts.push(one.to + ": " + whole(one.delivered) + " sent, " + whole(one.lost + one.refused) +
        " lost" + (one.trouble ? " (" + one.trouble + ")" : ""));
    });
    text($("gauges"), parts.join(" · "));
  }

  poll();
}());
