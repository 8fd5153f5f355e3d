/* Scores against threshold and baseline, the drift alarm, and the threshold itself. Plain ES5. */
var Scores = (function () {
  "use strict";
  var $ = Tools.$, text = Tools.text, draw = Tools.draw, clear = Tools.clear,
    whole = Tools.whole, plural = Tools.plural, percent = Tools.percent, score = Tools.score,
    limit = Tools.limit, ask = Tools.ask;
  var state = null, drawn = "", edited = null, asked = 0;

  function show(answer) {
    if (!state || state.run !== answer.run) { drawn = ""; }
    state = answer;
    plot();
    threshold();
    if (edited !== null && !$("preview").className) { preview(edited, asked); }
    drift();
  }

  function plot() {
    var svg = $("histogram"), box = $("plot"), all = state.histogram;
    var width = box.clientWidth, height = box.clientHeight;
    var mark = [width, height, edited, state.threshold, JSON.stringify(all)].join();
    if (!width || drawn === mark) { return; }
    drawn = mark;
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

  window.addEventListener("resize", function () { if (state) { plot(); } });
  return { show: show };
}());
