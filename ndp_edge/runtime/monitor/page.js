/* The monitor's page. Plain ES5: it has to run on old panels. Everything that comes from the
   line goes into the page as text, never as markup. */
(function () {
  "use strict";
  var EVERY = 1000, PATIENCE = 4000, HOLD = 3000;
  var SVG = "http://www.w3.org/2000/svg";
  var state = null, heard = 0, shown = {}, edited = null, asked = 0, timer = null, held = 0;
  var viewing = null;

  function $(id) { return document.getElementById(id); }

  function text(node, words) {
    if (node.textContent !== words) { node.textContent = words; }
  }

  function make(name, kind, words) {
    var node = document.createElement(name);
    if (kind) { node.className = kind; }
    if (words !== undefined) { node.textContent = words; }
    return node;
  }

  function draw(parent, name, attributes, words) {
    var node = document.createElementNS(SVG, name), key;
    for (key in attributes) { node.setAttribute(key, attributes[key]); }
    if (words !== undefined) { node.textContent = words; }
    parent.appendChild(node);
    return node;
  }

  function clear(node) { while (node.firstChild) { node.removeChild(node.firstChild); } }

  function whole(number) {
    return String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
  }

  function plural(number, one, many) { return whole(number) + " " + (number === 1 ? one : many); }

  function percent(share) {
    var value = 100 * share;
    return value.toFixed(value > 0 && value < 9.95 ? 1 : 0) + "\u202f%";
  }

  function score(value) { return value === null ? "–" : value.toFixed(3); }

  function limit(value) { return String(Number(value.toPrecision(4))); }

  function ms(value) { return value < 99.5 ? value.toPrecision(2).replace(/e.*/, "") : whole(value); }

  function clock(seconds) {
    var date = new Date(1000 * seconds);
    function two(number) { return (number < 10 ? "0" : "") + number; }
    return two(date.getHours()) + ":" + two(date.getMinutes()) + ":" + two(date.getSeconds());
  }

  function ask(method, path, body, done) {
    var request = new XMLHttpRequest();
    request.open(method, path, true);
    request.timeout = PATIENCE;
    if (body !== null) { request.setRequestHeader("Content-Type", "application/json"); }
    request.onload = function () { done(request.status, request.responseText); };
    request.onerror = request.ontimeout = function () { done(0, "no answer"); };
    request.send(body === null ? null : JSON.stringify(body));
  }

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
    plot();
    threshold();
    if (edited !== null && !$("preview").className) { preview(edited, asked); }
    drift();
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

  /* ---- scores ---- */

  function plot() {
    var svg = $("histogram"), box = $("plot"), all = state.histogram;
    var width = box.clientWidth, height = box.clientHeight;
    var mark = [width, height, edited, state.threshold, JSON.stringify(all)].join();
    if (!width || shown.plot === mark) { return; }
    shown.plot = mark;
    var low = height - 18, line = all.line || [], base = all.baseline || [];
    var bins = line.length || base.length, i, high = 0, path = "", top, x;
    for (i = 0; i < bins; i += 1) { high = Math.max(high, line[i] || 0, base[i] || 0); }
    function across(value) { return 8 + (width - 16) * Math.min(value / all.top, 1); }
    /* the root lets a few rejects show beside thousands of good frames */
    function up(share) { return high ? (low - 16) * Math.sqrt(share / high) : 0; }
    clear(svg);
    svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    for (i = 0; i < line.length; i += 1) {
      x = across(all.top * i / bins);
      if (line[i] > 0) {
        top = Math.max(up(line[i]), 2);
        draw(svg, "rect", {
          x: x + 0.5, width: Math.max(across(all.top * (i + 1) / bins) - x - 1, 1),
          y: low - top, height: top,
          fill: all.top * (i + 0.5) / bins > state.threshold ? "#e39a63" : "#8fb7d2"
        });
      }
    }
    for (i = 0; i < base.length; i += 1) {
      path += (i ? "V" : "M" + across(0) + " " + low + "V") + (low - up(base[i])) +
        "H" + across(all.top * (i + 1) / bins);
    }
    if (path) {
      draw(svg, "path", { d: path + "V" + low, fill: "none", stroke: "#1b2430", "stroke-width": 1.5 });
    }
    draw(svg, "line", { x1: 8, x2: width - 8, y1: low + 0.5, y2: low + 0.5, stroke: "#98a2ae" });
    for (i = 0; i <= 5; i += 1) {
      draw(svg, "text", {
        x: across(all.top * i / 5), y: height - 4,
        "text-anchor": i === 0 ? "start" : i === 5 ? "end" : "middle"
      }, String(Number((all.top * i / 5).toPrecision(3))));
    }
    upright(svg, across(state.threshold), low, "");
    if (edited !== null) { upright(svg, across(edited), low, "4 3"); }
    text($("lineword"), "last " + whole(all.n) + (state.tiled ? " frames (one tile each)" : " frames"));
    $("baseword").parentNode.querySelector(".step").hidden = !all.baseline;
    text($("baseword"), all.baseline ? whole(state.drift.baseline) + " good pictures at the build" : "");
  }

  function upright(svg, x, low, dash) {
    draw(svg, "line", {
      x1: x, x2: x, y1: 4, y2: low, stroke: "#c2500a", "stroke-width": 2.5, "stroke-dasharray": dash
    });
  }

  function drift() {
    var told = state.drift, words, banner = $("banner"), medians = "";
    if (told.distance !== null) {
      medians = " (median " + score(told.median) + "; at the build " + score(told.expected) + ")";
    }
    if (told.baseline === null) {
      words = "No baseline in this bundle: no drift alarm. Building it again adds one.";
    } else if (told.distance === null) {
      words = "Drift: " + whole(told.filled) + " of " + whole(told.window) +
        " good frames gathered for the first comparison.";
    } else if (told.probability < told.alarm_rate) {
      words = "The last " + whole(told.window) + " good frames do not score as at the build" +
        medians + ".";
    } else {
      words = "No drift among good frames: they score as at the build" + medians + ".";
    }
    text($("drift"), words);
    banner.hidden = !told.alarm;
    text(banner, told.alarm === "row"
      ? "Drift alarm: ten or more rejects one after another. Look at lamp, lens and product."
      : "Drift alarm: good product does not score as at the build" + medians +
        ". Look at lamp, lens and product.");
  }

  /* ---- the threshold ---- */

  function threshold() {
    var top = state.histogram.top, slide = $("slide"), value = $("value");
    slide.disabled = value.disabled = state.read_only;
    if (edited === null) {
      slide.value = Math.round(1000 * state.threshold / top);
      if (document.activeElement !== value) { value.value = limit(state.threshold); }
    }
    $("ask").hidden = edited === null;
    $("back").hidden = edited !== null || state.threshold === state.shipped || state.read_only;
    text($("back"), "Back to the bundle's " + limit(state.shipped));
    if (edited === null && !$("preview").className) {
      text($("preview"), state.read_only ? "Read-only here."
        : state.threshold === state.shipped ? ""
        : "Turned by hand: the bundle's promise about false rejects holds at " +
          limit(state.shipped) + " only.");
    }
  }

  function edit(number) {
    edited = number;
    $("preview").className = "";
    text($("apply"), "Apply " + limit(number));
    threshold();
    plot();
    var mine = asked += 1;
    window.setTimeout(function () {
      if (mine === asked) { preview(number, mine); }
    }, 150);
  }

  function preview(number, mine) {
    ask("GET", "/preview.json?threshold=" + encodeURIComponent(number), null, function (status, answer) {
      if (mine !== asked || edited === null) { return; }
      if (status !== 200) { wrong(answer); return; }
      var told = JSON.parse(answer), words;
      words = "Of the last " + plural(told.frames, "frame", "frames") + ", " + whole(told.now) +
        (told.now === 1 ? " is" : " are") + " rejected now and " + whole(told.then) + " would be: " +
        (told.more ? whole(told.more) + " more." : told.fewer ? whole(told.fewer) + " fewer."
          : "no change.");
      if (told.n !== null) {
        words += " Of " + whole(told.n) + " good pictures at the build, " +
          percent(told.baseline_now) + " are above now and " + percent(told.baseline_then) +
          " would be.";
      }
      text($("preview"), words);
    });
  }

  function wrong(words) {
    $("preview").className = "wrong";
    text($("preview"), words);
  }

  function leave() {
    edited = null;
    asked += 1;
    $("preview").className = "";
    text($("preview"), "");
    threshold();
    plot();
  }

  $("slide").addEventListener("input", function () {
    var number = Number(($("slide").value / 1000 * state.histogram.top).toPrecision(4));
    $("value").value = limit(number);
    edit(number);
  });
  $("value").addEventListener("input", function () {
    var words = $("value").value.replace(",", "."), number = Number(words);
    if (!words.trim() || !(number >= 0 && number <= 1)) { wrong("Give a number from 0 to 1."); return; }
    $("slide").value = Math.round(1000 * number / state.histogram.top);
    edit(number);
  });
  $("cancel").addEventListener("click", leave);
  $("back").addEventListener("click", function () {
    $("value").value = limit(state.shipped);
    $("slide").value = Math.round(1000 * state.shipped / state.histogram.top);
    edit(state.shipped);
  });
  $("turn").addEventListener("submit", function (event) {
    event.preventDefault();
    if (edited === null) { return; }
    if (!$("who").value.trim()) {
      wrong("Your name goes into the record of the run; fill it in.");
      $("who").focus();
      return;
    }
    var body = { threshold: edited, from: state.threshold, who: $("who").value };
    ask("POST", "/threshold", body, function (status, answer) {
      if (status !== 200) { wrong(answer); return; }
      state.threshold = JSON.parse(answer).threshold;
      leave();
    });
  });

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

  window.addEventListener("resize", function () { if (state) { plot(); } });
  poll();
}());
