// Tables of queries: a head sorts the rows, the first cell opens a row. Without this script every row is open.
"use strict";
(() => {
  const number = (text) => {
    const match = /^[−-]?[\d,]*\.?\d+/.exec(text);
    return match ? Number(match[0].replaceAll(",", "").replace("−", "-")) : null;
  };
  const opened = (row) => row.nextElementSibling?.classList.contains("more") ? row.nextElementSibling : null;

  function setOpen(row, open) {
    const more = opened(row);
    if (!more) return;
    more.hidden = !open;
    row.classList.toggle("open", open);
    row.querySelector("button").setAttribute("aria-expanded", String(open));
  }

  // What has no number comes last in both orders; rows keep what they open to.
  function sort(table, column, descending) {
    const body = table.tBodies[0], label = table.tHead.rows[0].cells[column].classList.contains("left");
    const rows = [...body.querySelectorAll("tr.row")].map((row) => {
      const text = row.cells[column].querySelector("bdi").textContent;
      return { row, more: opened(row), key: label ? text : number(text) };
    });
    const sign = descending ? -1 : 1;
    rows.sort((x, y) => {
      if (x.key === null || y.key === null) return (x.key === null) - (y.key === null);
      return sign * (label ? x.key.localeCompare(y.key) : x.key - y.key);
    });
    for (const { row, more } of rows) body.append(...(more ? [row, more] : [row]));
    for (const [at, head] of [...table.tHead.rows[0].cells].entries()) {
      if (at === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  function start(table) {
    for (const [at, head] of [...table.tHead.rows[0].cells].entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, at, head.getAttribute("aria-sort") === "ascending"));
      head.append(button);
    }
    for (const [at, row] of [...table.querySelectorAll("tr.row")].entries()) {
      const more = opened(row);
      if (!more) continue;
      more.id = `${table.id}-more-${at}`;
      const words = row.querySelector(".opener"), button = document.createElement("button");
      button.type = "button";
      button.className = "opener";
      button.setAttribute("aria-controls", more.id);
      button.append(...words.childNodes);
      words.replaceWith(button);
      button.addEventListener("click", () => setOpen(row, more.hidden));
      setOpen(row, false);
    }
  }

  function fromAddress() {
    const row = document.getElementById(location.hash.slice(1));
    if (!row || !row.classList.contains("row")) return;
    setOpen(row, true);
    row.scrollIntoView();
    (row.querySelector("button, a") || row).focus({ preventScroll: true });
  }

  document.querySelectorAll("table.rows").forEach(start);
  addEventListener("hashchange", fromAddress);
  addEventListener("beforeprint", () => document.querySelectorAll("#method details").forEach((one) => { one.open = true; }));
  fromAddress();
})();
