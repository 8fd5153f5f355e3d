/* What both scripts of the page share: nodes, numbers as words, requests. Plain ES5. */
var Tools = (function () {
  "use strict";
  var PATIENCE = 4000;
  var SVG = "http://www.w3.org/2000/svg";

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

  return {
    $: $,
    text: text,
    make: make,
    draw: draw,
    clear: clear,
    whole: whole,
    plural: plural,
    percent: percent,
    score: score,
    limit: limit,
    ms: ms,
    clock: clock,
    ask: ask,
    PATIENCE: PATIENCE
  };
}());
