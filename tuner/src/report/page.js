"use strict";
(() => {
  const key = (row, column) => {
    const text = row.cells[column].textContent.trim();
    return { text, isNone: text === "", value: text === "" ? 0 : Number(text) };
  };
  const compare = (a, b) => {
    if (a.isNone || b.isNone) return Number(a.isNone) - Number(b.isNone);
    const difference = a.value - b.value;
    return difference === difference ? difference : a.text.localeCompare(b.text);
  };

  /* Sorts the rows of a table by a column; what is not known stays last. */
  const sort = (table, head, column) => {
    const isAscending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    const keyed = [...table.tBodies[0].rows].map((row) => ({ row, key: key(row, column) }));
    const sign = isAscending ? 1 : -1;
    keyed.sort((a, b) => compare(a.key, b.key) * (a.key.isNone || b.key.isNone ? 1 : sign));
    table.tBodies[0].append(...keyed.map(({ row }) => row));
  };

  /* Shows the rows that contain every word. */
  const filter = (table, text, shown) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const cells = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => cells.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${table.tBodies[0].rows.length} rows`;
  };

  const prepare = (table) => {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, head, column));
      head.replaceChildren(button);
    });
    if (!table.classList.contains("filtered") || table.tBodies[0].rows.length < 6) return;
    const [label, input, shown] = ["label", "input", "span"].map((name) => document.createElement(name));
    input.type = "search";
    input.placeholder = "words, such as: winograd tie";
    input.setAttribute("aria-label", "Show the rows that contain these words");
    input.addEventListener("input", () => filter(table, input.value, shown));
    label.className = "filter";
    label.append("Filter", input, shown);
    table.parentElement.before(label);
  };

  /* A link to a folded chart opens it. */
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };

  document.querySelectorAll("table.data").forEach(prepare);
  addEventListener("hashchange", open);
  open();
})();
