// A board as a table: chosen columns, sorting, filters, groups. Texts of results become text nodes and never markup.

const PAGE = 100; // rows of a table that are shown at first
const GROUPED = 20; // rows from which a table with groups is folded

const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (name) node.className = name;
  return node;
};

const coded = (node, text) => {
  // a line in which commands stand between backticks
  text.split("`").forEach((piece, i) => node.append(i % 2 ? make("code", piece) : piece));
  return node;
};

const action = (text, does, about) => {
  const button = make("button", text);
  button.type = "button";
  if (about) button.title = about;
  button.addEventListener("click", does);
  return button;
};

const fold = (title, ...parts) => {
  const details = make("details");
  details.append(make("summary", title), ...parts);
  return details;
};

function shade(cell, value, good) {
  // blue is good for the owner of the model, orange is bad, no colour is in between: readable with every colour vision
  const away = (Math.min(Math.max(value, 0), 1) - 0.5) * good;
  cell.style.background = `rgba(var(--${away < 0 ? "bad" : "good"}), ${(Math.abs(away) * 0.9).toFixed(2)})`;
}

const scale = () => {
  const line = make("p", null, "caption scale");
  const bar = make("span", null, "bar-of-colours");
  bar.setAttribute("aria-hidden", "true");
  line.append("Colours, for the owner of the model: bad ", bar, " good.");
  return line;
};

// removes blanks around a comparison
const terms = (text) => text.toLowerCase().replace(/\s*(<=|>=|<|>)\s*/g, "$1").split(/\s+/).filter(Boolean);
const comparison = (word) => /^(.+?)(<=|>=|<|>)([-+]?[\d.]+(?:e[-+]?\d+)?)$/.exec(word);

const cards = new Map(); // from the name of an attack or a defense on boards to the anchor of its card
const keys = new Map(); // from the printed part of a key to the position of the first trial with that key

class Table {
  // columns: [{name, about, shown, sort, good, heat, index, compact, full}]; sort holds numbers, null for texts;
  // full: what a short text stands for. group: the column by which rows are folded. changed: called after every change.
  constructor(board, id, changed) {
    Object.assign(this, { notes: [], ...board }, { id, changed, limit: PAGE, words: "", shared: [], by: null, down: false });
    this.size = board.columns.length ? board.columns[0].shown.length : 0;
    this.numeric = board.columns.map((column) => !column.index && column.sort.some((value) => value !== null));
    const lines = board.columns.filter((_, i) => !this.numeric[i]).flatMap(({ shown, full }) => (full ? [shown, full] : [shown]));
    this.text = Array.from({ length: this.size }, (_, i) => lines.map((line) => line[i]).join(" ").toLowerCase());
    this.usual = board.columns.map((_, i) => i).filter((i) => board.columns[i].compact !== false);
    this.chosen = this.usual;
    this.opened = new Set();
    this.node = make("article", null, "board");
    this.node.dataset.setting = board.setting;
    this.build();
    this.draw();
  }

  build() {
    const bar = make("div", null, "bar");
    this.filter = make("input");
    Object.assign(this.filter, { type: "search", placeholder: "words, gain>0.5" });
    this.filter.setAttribute("aria-label", `Filter rows of ${this.title}`);
    this.filter.addEventListener("input", () => { this.words = this.filter.value; this.draw(); this.changed(); });
    const tools = make("div", null, "tools");
    const name = fileName(this.title);
    tools.append(
      this.filter,
      action("CSV", () => save(`${name}.csv`, "text/csv", asCsv(...this.grid())), "Download the rows and columns in view as CSV"),
      action("LaTeX", () => save(`${name}.tex`, "text/plain", asLatex(...this.grid())), "Download the rows and columns in view as a LaTeX table"),
    );
    bar.append(make("h3", this.title), tools);
    const table = make("table");
    const caption = make("caption", this.title, "unseen");
    this.head = table.createTHead();
    this.body = table.createTBody();
    table.prepend(caption);
    this.scroll = make("div", null, "scroll");
    this.scroll.tabIndex = 0;
    this.scroll.setAttribute("role", "region");
    this.scroll.setAttribute("aria-label", `${this.title}, scrolls sideways`);
    this.scroll.append(table);
    fading.observe(this.scroll);
    this.scroll.addEventListener("scroll", () => fade(this.scroll), { passive: true });
    this.more = action("", () => { this.limit = Infinity; this.draw(); });
    this.none = make("p", "No row matches.", "caption");
    const warning = (line) => coded(make("p", null, line.startsWith("Warning") ? "caption warning" : "caption"), line);
    this.node.append(bar, this.scroll, this.more, this.none);
    if (this.columns.some(({ heat, good }) => heat && good)) this.node.append(scale());
    this.node.append(...this.caption.map(warning));
    const folds = make("div", null, "folds");
    if (this.columns.length > 1) folds.append(this.chooser());
    if (this.notes.length) folds.append(fold("Data, training, machine, parameters", ...this.notes.map(warning)));
    this.node.append(folds);
  }

  chooser() {
    // all columns with what they mean; a mark shows a column
    const list = make("ul", null, "columns");
    this.boxes = this.columns.map(({ name, about, good }, i) => {
      const box = make("input");
      box.type = "checkbox";
      box.addEventListener("change", () => this.choose(this.columns.map((_, at) => at).filter((at) => this.boxes[at].checked)));
      const label = make("label");
      label.append(box, " ", make("b", name));
      const line = make("li");
      line.append(label, about ? `: ${about}` : "", good ? ` (${good > 0 ? "high" : "low"} is good for the owner of the model)` : "");
      list.append(line);
      return box;
    });
    const buttons = make("p");
    buttons.append(
      action("all columns", () => this.choose(this.columns.map((_, i) => i))), " ",
      action("usual columns", () => this.choose(this.usual)),
    );
    const details = fold("", buttons, list);
    this.counted = details.firstChild;
    return details;
  }

  choose(columns) {
    this.chosen = columns.length ? columns : this.usual;
    this.draw();
    this.changed();
  }

  style(i) {
    return [this.numeric[i] ? "" : "text", this.columns[i].index ? "name" : "", i === this.pin ? "pin" : ""].join(" ").trim();
  }

  order(i) {
    // first click: largest number or first text on top; third click: the order of the board
    const first = this.numeric[i];
    if (this.by !== i) [this.by, this.down] = [i, first];
    else if (this.down === first) this.down = !first;
    else this.by = null;
    this.draw();
    this.changed();
  }

  column(word) {
    return this.columns.findIndex(({ name }) => name.toLowerCase().replaceAll(" ", "") === word);
  }

  has(word, i) {
    // `gain>0.5` compares the numbers of a column; any other word is searched in the texts
    const bound = comparison(word);
    if (!bound) return this.text[i].includes(word);
    const at = this.column(bound[1]);
    if (at < 0) return false;
    const { shown, sort } = this.columns[at];
    const value = sort[i] ?? (shown[i].trim() === "" ? NaN : Number(shown[i])); // seeds and bits are texts with numbers
    const apart = value - Number(bound[3]);
    if (bound[2].length === 2 && apart === 0) return true;
    return bound[2].startsWith(">") ? apart > 0 : apart < 0;
  }

  rows() {
    const wanted = [...terms(this.words), ...this.shared];
    const kept = [...this.text.keys()].filter((i) => wanted.every((word) => this.has(word, i)));
    if (this.by === null) return kept;
    const { shown, sort } = this.columns[this.by];
    const sign = this.down ? -1 : 1;
    const compare = this.numeric[this.by]
      ? (a, b) => (sort[a] === null) - (sort[b] === null) || sign * (sort[a] - sort[b])
      : (a, b) => sign * shown[a].localeCompare(shown[b], "en", { numeric: true });
    return kept.sort((a, b) => compare(a, b) || a - b);
  }

  grid() {
    // what is in view: names, whether a column holds numbers, rows of [text, number or null], positions of best rows
    const rows = this.rows();
    const cells = rows.map((i) => this.chosen.map((at) => [this.columns[at].shown[i], this.columns[at].sort[i]]));
    const best = rows.flatMap((i, at) => ((this.best || []).includes(i) ? [at] : []));
    return [this.chosen.map((at) => this.columns[at].name), this.chosen.map((at) => this.numeric[at]), cells, best];
  }

  draw() {
    this.pin = this.chosen.findLast((i) => this.columns[i].index); // stays visible on a narrow screen
    const row = make("tr");
    for (const i of this.chosen) {
      const head = make("th", null, this.style(i));
      head.scope = "col";
      const button = action("", () => {}, this.columns[i].about);
      for (const piece of this.columns[i].name.split(/(?=[(_])/)) button.append(piece, make("wbr")); // where long names may break
      head.append(button);
      head.addEventListener("click", () => { this.order(i); this.head.rows[0].cells[this.chosen.indexOf(i)].firstChild.focus(); });
      if (i === this.by) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      row.append(head);
    }
    this.head.replaceChildren(row);
    const rows = this.rows();
    this.left = rows.length;
    const folded = this.group !== undefined && this.by === null && rows.length > GROUPED;
    const shown = folded ? this.folded(rows) : rows.slice(0, this.limit).map((i) => this.row(i));
    this.body.replaceChildren(...shown);
    this.more.hidden = folded || rows.length <= this.limit;
    this.more.textContent = `show all ${rows.length} rows`;
    this.none.hidden = rows.length > 0;
    if (this.counted) this.counted.textContent = `Columns (${this.chosen.length} of ${this.columns.length})`;
    if (this.boxes) this.boxes.forEach((box, i) => { box.checked = this.chosen.includes(i); });
    fade(this.scroll);
  }

  folded(rows) {
    // a row per group, which opens and closes the rows of the group
    const groups = Map.groupBy ? Map.groupBy(rows, (i) => this.columns[this.group].shown[i]) : grouped(rows, (i) => this.columns[this.group].shown[i]);
    return [...groups].flatMap(([name, mine]) => {
      const open = this.opened.has(name);
      const line = make("tr", null, "group");
      const cell = make("td", null, "text");
      cell.colSpan = this.chosen.length;
      const button = action(`${open ? "▾" : "▸"} ${name}: ${mine.length} rows`, () => {
        if (open) this.opened.delete(name);
        else this.opened.add(name);
        this.draw();
      });
      button.setAttribute("aria-expanded", String(open));
      cell.append(button);
      line.append(cell);
      return [line, ...(open ? mine.map((i) => this.row(i)) : [])];
    });
  }

  row(i) {
    const best = (this.best || []).includes(i);
    const row = make("tr", null, best ? "best" : "");
    for (const at of this.chosen) {
      const column = this.columns[at];
      const cell = make("td", null, this.style(at));
      const key = column.name === "key" && column.shown[i];
      if (key && (this.places || keys.has(key))) {
        const link = make("a", key);
        link.href = `#trial-${this.places ? i : keys.get(key)}`;
        cell.append(link);
      } else if (column.index && !this.places && cards.has(column.shown[i])) {
        const link = make("a", column.shown[i], "plain");
        link.href = `#${cards.get(column.shown[i])}`;
        cell.append(link);
      } else cell.textContent = column.shown[i];
      if (column.full && column.full[i] !== column.shown[i]) cell.title = column.full[i];
      if (column.heat && column.good && column.sort[i] !== null) shade(cell, column.sort[i], column.good);
      row.append(cell);
    }
    if (this.places) {
      row.classList.add("opens");
      row.addEventListener("click", (event) => { if (!event.target.closest("a")) location.hash = `#trial-${i}`; });
    }
    return row;
  }

  state() {
    // what differs from a fresh table, as parameters of the address
    const found = {};
    if (this.words) found.rows = this.words;
    if (this.by !== null) found.sort = `${this.down ? "down" : "up"}:${this.columns[this.by].name}`;
    if (this.chosen.join() !== this.usual.join()) found.columns = this.chosen.join(".");
    return found;
  }

  restore({ rows = "", sort = "", columns = "" }) {
    this.words = this.filter.value = rows;
    const [way, ...name] = sort.split(":");
    const at = this.columns.findIndex((column) => column.name === name.join(":"));
    [this.by, this.down] = [at < 0 ? null : at, way === "down"];
    const known = columns.split(".").filter((i) => i !== "" && this.columns[i] !== undefined).map(Number);
    this.chosen = known.length ? known : this.usual;
    this.draw();
  }
}

function grouped(values, by) {
  const found = new Map();
  for (const value of values) found.set(by(value), [...(found.get(by(value)) || []), value]);
  return found;
}

// A table that goes on to the right fades out there.
const fade = (box) => box.classList.toggle("goes-on", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
const fading = new ResizeObserver((entries) => { for (const { target } of entries) fade(target); });
