"use strict";
// Builds the tables of the report from the data in the page. Texts of results become text nodes and never markup.

const PAGE = 100; // rows of a table that are shown at first
const all = "all settings";

const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (name) node.className = name;
  return node;
};

async function unpack(id) {
  const octets = Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([octets]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function shade(cell, value) {
  // blue for 0, orange for 1, no colour in between: readable with every common colour vision
  const away = Math.min(Math.max(value, 0), 1) - 0.5;
  cell.style.background = `rgba(var(--${away < 0 ? "cold" : "hot"}), ${(Math.abs(away) * 0.9).toFixed(2)})`;
}

class Table {
  // columns: [{name, about, shown, sort, heat, index}]; sort holds numbers, null for texts
  constructor(board, counted) {
    Object.assign(this, board, { counted, limit: PAGE, own: [], shared: [], by: null, down: false });
    this.size = board.columns.length ? board.columns[0].shown.length : 0;
    this.numeric = board.columns.map((column) => !column.index && column.sort.some((value) => value !== null));
    const lines = board.columns.filter((_, i) => !this.numeric[i]).map((column) => column.shown);
    this.text = Array.from({ length: this.size }, (_, i) => lines.map((line) => line[i]).join(" ").toLowerCase());
    this.pin = board.columns.findLastIndex((column) => column.index); // stays visible on a narrow screen
    this.node = make("article", null, "board");
    this.node.dataset.setting = board.setting;
    this.build();
    this.draw();
  }

  build() {
    const bar = make("div", null, "bar");
    const filter = make("input");
    Object.assign(filter, { type: "search", placeholder: "words, gain>0.5" });
    filter.setAttribute("aria-label", `Filter rows of ${this.title}`);
    filter.addEventListener("input", () => { this.own = terms(filter.value); this.draw(); this.counted(); });
    bar.append(make("h3", this.title), filter);
    const table = make("table");
    this.heads = this.columns.map((column, i) => {
      const head = make("th", null, this.style(i));
      const button = make("button", column.name);
      button.type = "button";
      if (column.about) button.title = column.about;
      head.append(button);
      head.addEventListener("click", () => this.order(i));
      return head;
    });
    const row = make("tr");
    row.append(...this.heads);
    table.createTHead().append(row);
    this.body = table.createTBody();
    const scroll = make("div", null, "scroll");
    scroll.tabIndex = 0;
    scroll.append(table);
    this.more = make("button", "");
    this.more.type = "button";
    this.more.addEventListener("click", () => { this.limit = Infinity; this.draw(); });
    const lines = this.caption.map((line) => make("p", line, line.startsWith("Warning") ? "caption warning" : "caption"));
    this.node.append(bar, scroll, this.more, ...lines);
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
  }

  has(word, i) {
    // `gain>0.5` compares the numbers of a column; any other word is searched in the texts
    const bound = /^(.+?)(<=|>=|<|>)([-+]?[\d.]+(?:e[-+]?\d+)?)$/.exec(word);
    if (!bound) return this.text[i].includes(word);
    const at = this.columns.findIndex(({ name }) => name.toLowerCase().replaceAll(" ", "") === bound[1]);
    if (at < 0) return false;
    const { shown, sort } = this.columns[at];
    const value = sort[i] ?? (shown[i].trim() === "" ? NaN : Number(shown[i])); // seeds and bits are texts with numbers
    const apart = value - Number(bound[3]);
    if (bound[2].length === 2 && apart === 0) return true;
    return bound[2].startsWith(">") ? apart > 0 : apart < 0;
  }

  rows() {
    const wanted = [...this.own, ...this.shared];
    const kept = [...this.text.keys()].filter((i) => wanted.every((word) => this.has(word, i)));
    if (this.by === null) return kept;
    const { shown, sort } = this.columns[this.by];
    const sign = this.down ? -1 : 1;
    const compare = this.numeric[this.by]
      ? (a, b) => (sort[a] === null) - (sort[b] === null) || sign * (sort[a] - sort[b])
      : (a, b) => sign * shown[a].localeCompare(shown[b], "en", { numeric: true });
    return kept.sort((a, b) => compare(a, b) || a - b);
  }

  draw() {
    this.heads.forEach((head, i) => {
      if (i === this.by) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const rows = this.rows();
    this.body.replaceChildren(...rows.slice(0, this.limit).map((i) => this.row(i)));
    this.more.hidden = rows.length <= this.limit;
    this.more.textContent = `show all ${rows.length} rows`;
    this.left = rows.length;
  }

  row(i) {
    const best = (this.best || []).includes(i);
    const row = make("tr", null, best ? "best" : "");
    this.columns.forEach((column, at) => {
      const cell = make("td", null, this.style(at));
      const key = column.name === "key" && column.shown[i];
      if (key && (this.places || keys.has(key))) {
        const link = make("a", key);
        link.href = `#trial-${this.places ? i : keys.get(key)}`;
        cell.append(link);
      } else cell.textContent = column.shown[i];
      if (column.heat && column.sort[i] !== null) shade(cell, column.sort[i]);
      row.append(cell);
    });
    if (this.places) {
      row.classList.add("opens");
      row.addEventListener("click", (event) => { if (!event.target.closest("a")) location.hash = `#trial-${i}`; });
    }
    return row;
  }
}

// removes blanks around a comparison
const terms = (text) => text.toLowerCase().replace(/\s*(<=|>=|<|>)\s*/g, "$1").split(/\s+/).filter(Boolean);

const keys = new Map(); // from the printed part of a key to the position of the first trial with that key

function copies(button, text) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "copied";
    } catch {
      button.textContent = "select it by hand"; // a browser may deny files access to the clipboard
    }
  });
}

function tableOfTrials(trials) {
  const { axes, columns, shown, sort } = trials;
  const varying = axes.filter((axis) => new Set(columns[axis]).size > 1);
  const none = columns.key.map(() => null);
  const texts = [...varying, "status"].map((name) => ({ name, shown: columns[name], sort: none, index: varying.includes(name) }));
  const numbers = shown.map(([name, words], i) => ({ name, shown: words, sort: sort[i], heat: true }));
  const short = { name: "key", shown: columns.key.map((key) => key.slice(0, 8)), sort: none };
  return {
    title: "Trials", setting: "", caption: [], columns: [...texts, ...numbers, short],
    places: true, // rows are trials; several may share a key
  };
}

function facts(pairs) {
  const list = make("dl");
  for (const [name, value] of pairs) if (value) list.append(make("dt", name), make("dd", value));
  return list;
}

function show(trials, i) {
  const of = (name) => trials.columns[name][i];
  const about = document.getElementById("about");
  const command = make("p", null, "command");
  const code = make("code", of("replay"));
  const button = make("button", "copy");
  copies(button, () => code.textContent);
  command.append(code, " ", button);
  const status = of("reason") ? `${of("status")}: ${of("reason")}` : of("status");
  const short = of("key").slice(0, 8);
  const pictures = of("attack") === "none" ? "" : `python -m bench show ${short} --gallery attack.png`;
  const parts = [make("h3", `Trial ${short}`), command, facts([
    ["status", status], ...trials.axes.map((axis) => [axis, of(axis)]), ["training", of("changes")], ["access", of("access")],
    ["kind of defense", of("defense_kind")], ["key", of("key")], ["all stages", `python -m bench show ${short}`],
    ["pictures", pictures], ...trials.facts[of("facts")],
  ])];
  if (trials.logs[of("log")].length) parts.push(make("h3", "End of the log"), make("pre", trials.logs[of("log")].join("\n")));
  const scores = trials.scores[of("key")];
  if (scores) parts.push(make("h3", "Scores of the input detector (* its main score)"), facts(scores));
  const values = trials.metrics.map(([name, unit, meaning], at) => [name, trials.values[at][i], unit, meaning]);
  const known = values.filter(([, value]) => value !== "-");
  if (known.length) {
    const table = make("table");
    for (const [name, value, unit, meaning] of known) {
      const row = table.insertRow();
      row.append(make("td", name, "text name"), make("td", `${value} ${unit}`), make("td", meaning, "text"));
    }
    const scroll = make("div", null, "scroll");
    scroll.append(table);
    parts.push(make("h3", "Metrics"), scroll);
  }
  about.replaceChildren(...parts);
  const dialog = document.getElementById("trial");
  if (!dialog.open) dialog.showModal();
}

async function start() {
  const data = await unpack("data");
  data.trials.columns.key.forEach((key, i) => { if (key) keys.set(key.slice(0, 8), keys.get(key.slice(0, 8)) ?? i); });
  const boards = [...data.boards, { part: "trials", ...tableOfTrials(data.trials) }];
  const tables = boards.map((board) => {
    const table = new Table(board, () => count());
    document.querySelector(`.boards[data-part="${board.part}"]`).append(table.node);
    return table;
  });
  const charts = [...document.querySelectorAll(".chart")];
  const settings = [...new Set(tables.map((table) => table.node.dataset.setting).filter(Boolean))];
  const setting = document.getElementById("setting");
  setting.append(...[all, ...settings].map((name) => make("option", name)));
  setting.parentNode.hidden = settings.length < 2;
  const words = document.getElementById("words");
  const filter = () => {
    const wanted = setting.value;
    for (const table of tables) {
      const mine = table.node.dataset.setting;
      table.node.hidden = wanted !== all && Boolean(mine) && mine !== wanted;
      table.shared = terms(words.value);
      table.draw();
    }
    for (const chart of charts) chart.hidden = wanted !== all && Boolean(chart.dataset.setting) && chart.dataset.setting !== wanted;
    count();
  };
  const count = () => {
    const rows = tables.filter((table) => !table.node.hidden).reduce((sum, table) => sum + table.left, 0);
    document.getElementById("count").textContent = `${rows} rows`;
  };
  window.addEventListener("beforeprint", () => {
    for (const table of tables) Object.assign(table, { limit: Infinity }).draw();
    for (const card of document.querySelectorAll("details")) card.open = true;
  });
  setting.addEventListener("change", filter);
  words.addEventListener("input", filter);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  filter();
  const header = document.querySelector("header .command");
  copies(header.querySelector("button"), () => header.querySelector("code").textContent);
  const dialog = document.getElementById("trial");
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#trial-")) history.replaceState(null, "", location.pathname + location.search);
  });
  const follow = () => {
    const found = /^#trial-(\d+)$/.exec(location.hash);
    if (found && Number(found[1]) < data.trials.columns.key.length) show(data.trials, Number(found[1]));
    else if (dialog.open) dialog.close(); // after the back button
  };
  window.addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  document.getElementById("broken").hidden = false;
  throw error;
});
