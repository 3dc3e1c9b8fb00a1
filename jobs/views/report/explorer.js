// The explorer of pairs: draws what stands in the page's data block, links the words of the two texts, and obeys the
// keyboard. Text from the data is only ever set as text.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("pairs-data").textContent);
  const $ = (name) => document.getElementById(name);
  const NOT_STORED = -32768, FULL = 32767, STEPS = 8, LISTED = 5;
  // A lift below a pair's usual numerical error says nothing: of two equal texts every lift is about zero.
  const LEAST_LIFT = 2e-3;
  const state = { pair: null, cell: null, pinned: null, at: 0 };

  const make = (tag, properties = {}, ...children) => {
    const { dataset, style, attributes, ...plain } = properties;
    const node = Object.assign(document.createElement(tag), plain);
    Object.assign(node.dataset, dataset);
    Object.assign(node.style, style);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const isolated = (text, properties) => make("bdi", properties || {}, text);
  const signed = (value, digits) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

  // The same scale as in the other displays: steps follow the square root of the value's share of the largest one. Sums
  // are more alike than cells, and their steps are equal.
  function level(value, limit, power = 0.5) {
    if (!limit || value === undefined || Number.isNaN(value)) return "";
    const step = Math.round(Math.min(Math.abs(value) / limit, 1) ** power * STEPS);
    return step ? (value > 0 ? "p" : "n") + step : "";
  }
  // As short as it goes, for the cells: ".25", "-.03", "1.20".
  function short(value, digits) {
    if (value === undefined) return "·";
    const text = value.toFixed(digits);
    return (Number(text) === 0 ? text.replace("-", "") : text).replace(/^(-?)0\./, "$1.");
  }

  // --- the data of one pair: values[row][col] by group numbers, undefined where the run stored none
  function opened(index) {
    const pair = data.pairs[index];
    const values = new Map(pair.rows.map((row) => [row, new Map()]));
    const put = (place, value) => {
      values.get(pair.rows[Math.floor(place / pair.cols.length)]).set(pair.cols[place % pair.cols.length], value);
    };
    if (pair.cells) {
      for (const [place, value] of pair.cells) put(place, value);
    } else {
      const bytes = Uint8Array.from(atob(pair.matrix), (sign) => sign.charCodeAt(0));
      const shares = new DataView(bytes.buffer);
      for (let place = 0; place < bytes.length / 2; place++) {
        const share = shares.getInt16(2 * place, true);
        if (share !== NOT_STORED) put(place, (share / FULL) * pair.scale);
      }
    }
    const texts = pair.texts.map((at) => data.texts[at]);
    const sums = pair.sums.map((side) => new Map(side));
    const lifts = pair.lifts && pair.lifts.map((side) => new Map(side));
    const largest = (lifts || sums).map((side) =>
      Math.max(lifts ? LEAST_LIFT : 0, ...[...side.values()].map(Math.abs)));
    return { ...pair, index, values, texts, sums, lifts, largest };
  }

  // The pairs of group `g` of `side` (0 or 1) with the other side: [group, value], known cells only.
  function met(pair, side, g) {
    if (side === 0) return [...(pair.values.get(g) || [])];
    return pair.rows.filter((row) => pair.values.get(row).has(g)).map((row) => [row, pair.values.get(row).get(g)]);
  }

  // --- the two texts
  function drawText(side) {
    const pair = state.pair, text = pair.texts[side], box = $(`text-${side}`);
    box.replaceChildren();
    box.setAttribute("aria-label", `${pair.names[side]}: its words; arrow keys go from word to word`);
    $(`name-${side}`).textContent = pair.names[side];
    let first = true;
    for (const piece of text.pieces) {
      if (typeof piece === "string") {
        box.append(piece);
        continue;
      }
      const [g, label] = piece;
      const word = make("span", {
        className: "word",
        textContent: label,
        tabIndex: first ? 0 : -1,
        dataset: { side, g },
        attributes: { role: "button", "aria-pressed": "false" },
      });
      first = false;
      box.append(word);
    }
  }

  // --- the matrix
  function drawMatrix() {
    const pair = state.pair, matrix = $("matrix");
    matrix.replaceChildren();
    $("matrix-box").hidden = !(pair.rows.length && pair.cols.length);
    const label = (side, g) => pair.texts[side].labels[g];
    const heads = pair.cols.map((g) =>
      make("th", { scope: "col", title: label(1, g), dataset: { side: 1, g } }, isolated(label(1, g))));
    matrix.append(make("caption", {}, `${pair.complete ? "All" : "Stored"} ${pair.unit} pairs `,
      make("span", {}, `rows: ${pair.names[0]}, columns: ${pair.names[1]}; blue raises the score, orange lowers it`)));
    matrix.append(make("thead", {}, make("tr", {},
      make("th", { attributes: { "aria-label": `${pair.names[0]}, ${pair.names[1]}` } }), ...heads)));
    const body = make("tbody");
    for (const i of pair.rows) {
      const line = make("tr", {}, make("th", { scope: "row", dataset: { side: 0, g: i } }, isolated(label(0, i))));
      for (const j of pair.cols) {
        const value = pair.values.get(i).get(j);
        line.append(make("td", {
          className: level(value, pair.limit),
          textContent: short(value, pair.decimals),
          tabIndex: -1,
          dataset: { i, j },
          attributes: { role: "gridcell", "aria-selected": "false" },
        }));
      }
      body.append(line);
    }
    matrix.append(body);
    const cell = matrix.querySelector("tbody td");
    if (cell) cell.tabIndex = 0;
  }

  // --- everything else that is known of the pair
  function drawFacts() {
    const pair = state.pair;
    $("pair-title").replaceChildren(isolated(pair.title));
    const rows = [["", `score (${pair.similarity})`, pair.score], ...pair.terms];
    $("terms").replaceChildren(...rows.map(([sign, words, value], at) => make("tr", {},
      make("th", { scope: "row" }, at ? `${sign === "-" ? "−" : sign} ${words}` : make("strong", {}, words)),
      make("td", {}, at ? value.toFixed(3) : make("strong", {}, value.toFixed(3))))),
      make("tr", { className: "faint" }, make("th", { scope: "row" }, "numerical error"),
        make("td", {}, pair.error.toExponential(0))));
    $("notes").replaceChildren(...pair.notes.map(([note, warns]) =>
      make("p", { className: warns ? "warning" : "faint" }, note)));
    $("extra").replaceChildren(...pair.extra.map(([name, value]) =>
      make("span", { className: "piece" }, isolated(name), " ", make("strong", {}, isolated(value)))));
    $("command").textContent = `tokenpair show ${$("command").dataset.run} ${pair.quoted}`;
  }

  // --- what is under the pointer or has the focus: {side, g} for a word, {i, j} for a cell, null for nothing
  function mark(focus) {
    const pair = state.pair;
    const linked = focus && "g" in focus ? new Map(met(pair, focus.side, focus.g)) : null;
    for (const word of document.querySelectorAll("#explorer .word")) {
      const side = Number(word.dataset.side), g = Number(word.dataset.g);
      let value, limit = pair.limit, power = 0.5, chosen = false;
      if (!focus || !pair.rows.length) {
        // A pair without word pairs keeps its colours under the pointer.
        chosen = Boolean(focus) && side === focus.side && g === focus.g;
        value = (pair.lifts || pair.sums)[side].get(g);
        limit = pair.largest[side];
        power = 1;
      } else if (linked) {
        chosen = side === focus.side && g === focus.g;
        value = side === focus.side ? undefined : linked.get(g);
      } else {
        chosen = g === (side ? focus.j : focus.i);
        value = chosen ? pair.values.get(focus.i).get(focus.j) : undefined;
      }
      word.className = `word ${level(value, limit, power)}${chosen ? " chosen" : ""}`;
    }
    const sides = !focus ? [] : linked ? [focus] : [{ side: 0, g: focus.i }, { side: 1, g: focus.j }];
    for (const head of document.querySelectorAll("#matrix th[data-side]")) {
      head.classList.toggle("chosen",
        sides.some((one) => one.side === Number(head.dataset.side) && one.g === Number(head.dataset.g)));
    }
    for (const cell of document.querySelectorAll("#matrix td.chosen")) cell.classList.remove("chosen");
    if (focus && !linked) {
      const cell = document.querySelector(`#matrix td[data-i="${focus.i}"][data-j="${focus.j}"]`);
      if (cell) cell.classList.add("chosen");
    }
    tell(focus, linked);
  }

  function tell(focus, linked) {
    const pair = state.pair, digits = Math.max(pair.decimals, 2) + 1;
    const label = (side, g) => isolated(pair.texts[side].labels[g]);
    const called = (side) => (pair.names[side].length > 1 ? `the ${pair.names[side]}` : pair.names[side]);
    if (!focus) {
      $("readout").replaceChildren(make("p", { className: "faint" },
        `Point at a ${pair.unit}, or reach it with Tab and the arrow keys, to see ` +
        (pair.rows.length ? "its pairs with the other text. Until then the" : "what it adds. The") + ` colours` +
        (pair.lifts
          ? ` show lifts: a blue ${pair.unit} adds more than an average part of its text does and ` +
            `lifts the score; an orange one adds less and pulls it down, though it may still add something.`
          : ` show how much each adds to ${pair.aim} in all.`)));
      return;
    }
    if (!linked) {
      const value = pair.values.get(focus.i).get(focus.j);
      $("readout").replaceChildren(make("p", {}, make("strong", {}, label(0, focus.i), " × ", label(1, focus.j)), ": ",
        value === undefined ? "not stored" : signed(value, digits + 1)));
      return;
    }
    const sum = pair.sums[focus.side].get(focus.g);
    const lift = pair.lifts && sum !== undefined ? `; its lift is ${signed(pair.lifts[focus.side].get(focus.g), digits)}` : "";
    const strongest = [...linked].sort((x, y) => Math.abs(y[1]) - Math.abs(x[1])).slice(0, LISTED);
    const said = make("p", {}, make("strong", {}, label(focus.side, focus.g)),
      sum === undefined ? "" : ` adds ${signed(sum, digits)} to ${pair.aim} in all${lift}. `,
      strongest.length ? `Its strongest pairs in ${called(1 - focus.side)}:`
        : pair.rows.length ? "None of its pairs was stored." : "");
    const list = make("ol", {}, ...strongest.map(([g, value]) => make("li", { dataset: { g, value } },
      make("span", { className: "met" }, label(1 - focus.side, g)), " ",
      make("span", { className: "value" }, signed(value, digits)), " ",
      make("span", {
        className: `bar ${value < 0 ? "n6" : "p6"}`,
        style: { width: `${(38 * Math.abs(value)) / (pair.limit || 1)}%` },
      }))));
    $("readout").replaceChildren(said, list);
  }

  const focusOf = (node) => {
    const word = node.closest && node.closest("#explorer [data-side]");
    if (word) return { side: Number(word.dataset.side), g: Number(word.dataset.g), node: word };
    const cell = node.closest && node.closest("#explorer td[data-i]");
    return cell ? { i: Number(cell.dataset.i), j: Number(cell.dataset.j), node: cell } : null;
  };

  // Pinned, it stays marked while the pointer goes elsewhere; pinning it again lets go.
  function pin(focus) {
    const setPressed = (one, is) => {
      const name = { button: "aria-pressed", gridcell: "aria-selected" }[one.node.getAttribute("role")];
      if (name) one.node.setAttribute(name, String(is));
    };
    if (state.pinned) setPressed(state.pinned, false);
    state.pinned = focus && (!state.pinned || state.pinned.node !== focus.node) ? focus : null;
    if (state.pinned) setPressed(state.pinned, true);
    mark(state.pinned || focus);
  }

  // --- which pair
  function choose(list, at, follow) {
    const pairs = data.lists[list].pairs;
    state.list = list;
    state.at = (at + pairs.length) % pairs.length;
    state.pair = opened(pairs[state.at]);
    state.pinned = null;
    $("chooser").value = `${list}:${state.at}`;
    $("place").textContent = `${state.at + 1} of ${pairs.length}`;
    drawText(0);
    drawText(1);
    drawMatrix();
    drawFacts();
    mark(null);
    if (follow) history.replaceState(null, "", `#pair=${encodeURIComponent(state.pair.id)}`);
  }

  function fromAddress() {
    const found = /^#pair=(.*)$/.exec(location.hash);
    if (!found) return false;
    let id;
    try {
      id = decodeURIComponent(found[1]);
    } catch {
      return false;
    }
    for (const [list, one] of data.lists.entries()) {
      const at = one.pairs.findIndex((index) => data.pairs[index].id === id);
      if (at >= 0) {
        choose(list, at, false);
        $("explorer").scrollIntoView();
        $("pair-title").focus({ preventScroll: true });
        return true;
      }
    }
    return false;
  }

  // --- the keyboard: one stop of Tab in each text and in the matrix, arrows inside
  function walk(event) {
    const { key, target } = event;
    if (key === "Escape" && state.pair) {
      pin(null);
      mark(null);
      return;
    }
    const focus = focusOf(target);
    if (!focus || target !== focus.node) return;
    if (key === "Enter" || key === " ") {
      event.preventDefault();
      pin(focus);
      return;
    }
    const next = "g" in focus ? nextWord(key, target) : nextCell(key, target);
    if (!next) return;
    event.preventDefault();
    target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  function nextWord(key, word) {
    const words = [...word.parentElement.querySelectorAll(".word")], at = words.indexOf(word);
    const right = getComputedStyle(word.parentElement).direction === "rtl" ? -1 : 1;
    const places = {
      ArrowRight: at + right, ArrowLeft: at - right, ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: words.length - 1,
    };
    return words[places[key]];
  }

  function nextCell(key, cell) {
    const line = cell.parentElement, at = cell.cellIndex;
    const places = {
      ArrowRight: [line, at + 1], ArrowLeft: [line, at - 1], Home: [line, 1], End: [line, line.cells.length - 1],
      ArrowDown: [line.nextElementSibling, at], ArrowUp: [line.previousElementSibling, at],
    };
    const [row, place] = places[key] || [null, 0];
    return row && place > 0 ? row.cells[place] : null;
  }

  function start() {
    const chooser = $("chooser"), explorer = $("explorer");
    for (const [list, one] of data.lists.entries()) {
      const options = one.pairs.map((index, at) => {
        const pair = data.pairs[index];
        return make("option", { value: `${list}:${at}`, textContent: `${pair.score.toFixed(3)}  ${pair.title}` });
      });
      chooser.append(make("optgroup", { label: one.label }, ...options));
    }
    chooser.addEventListener("change", () => choose(...chooser.value.split(":").map(Number), true));
    $("before").addEventListener("click", () => choose(state.list, state.at - 1, true));
    $("after").addEventListener("click", () => choose(state.list, state.at + 1, true));
    explorer.addEventListener("pointerover", (event) => {
      // What was pointed at last stays marked between words, so that nothing flickers.
      const focus = event.pointerType !== "touch" && !state.pinned && focusOf(event.target);
      if (focus) mark(focus);
    });
    explorer.addEventListener("pointerleave", () => mark(state.pinned));
    explorer.addEventListener("focusin", (event) => {
      const focus = focusOf(event.target);
      if (focus && !state.pinned) mark(focus);
    });
    explorer.addEventListener("click", (event) => {
      const focus = focusOf(event.target);
      if (focus) pin(focus);
    });
    explorer.addEventListener("keydown", walk);
    addEventListener("hashchange", fromAddress);
    explorer.hidden = false;
    if (!fromAddress()) choose(0, 0, false);
  }

  if (data.lists.length) start();
})();
