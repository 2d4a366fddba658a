"use strict";
(() => {
  const table = document.getElementById("site-table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const tools = document.querySelector("form.tools");
  const find = document.getElementById("find");
  const choices = ["role", "scheme"].map((key) => [key, document.getElementById(key)]);
  const shown = document.getElementById("shown");
  const texts = rows.map((row) => `${row.textContent} ${row.dataset.site}`.toLowerCase());
  const natural = new Intl.Collator("en", { numeric: true });

  const value = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };

  const compare = (a, b) => {
    // Empty cells stay at the end in both directions.
    if (a === null || b === null) return null;
    return typeof a === "number" ? a - b : natural.compare(a, b);
  };

  const sort = (column) => {
    const head = heads[column];
    const down = head.getAttribute("aria-sort") === "ascending";
    const sign = down ? -1 : 1;
    const keyed = rows.map((row, index) => ({ row, index, key: value(row, column, head.dataset.kind) }));
    keyed.sort((a, b) => {
      const order = compare(a.key, b.key);
      if (order === null) return (a.key === null) - (b.key === null) || a.index - b.index;
      return sign * order || a.index - b.index;
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...keyed.map((item) => item.row));
  };

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, index) => {
      const keep =
        words.every((word) => texts[index].includes(word)) &&
        choices.every(([key, select]) => !select.value || row.dataset[key] === select.value);
      row.hidden = !keep;
      count += keep;
    });
    shown.textContent = count === rows.length ? `${count} sites` : `${count} of ${rows.length} sites`;
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  find.addEventListener("input", filter);
  choices.forEach(([, select]) => select.addEventListener("change", filter));
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.hidden = false;
  filter();
})();
