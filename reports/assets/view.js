// What is in view: the setting, the words, and each table's rows, order and columns. The address holds it after "&", so
// that a link shows the same: #chapter&words=strip&t0.sort=down:gain

const all = "all settings";

class View {
  constructor(tables, parts) {
    Object.assign(this, { tables, ...parts }); // setting, words, count, said: nodes of the page
    this.charts = [...document.querySelectorAll(".chart, .headline")];
    this.chapters = [...document.querySelectorAll("section.part")];
  }

  other(setting) {
    return this.setting.value !== all && Boolean(setting) && setting !== this.setting.value;
  }

  show() {
    const wanted = this.setting.value;
    const words = terms(this.words.value);
    for (const table of this.tables) {
      table.shared = words;
      table.draw();
      table.node.hidden = this.other(table.node.dataset.setting) || (words.length > 0 && table.left === 0);
    }
    for (const chart of this.charts) chart.hidden = this.other(chart.dataset.setting);
    const chosen = wanted === all ? null : this.charts.find((one) => one.tagName === "DETAILS" && one.dataset.setting === wanted);
    if (chosen) chosen.open = true;
    for (const chapter of this.chapters) {
      const boards = [...chapter.querySelectorAll(".board")];
      const pictures = [...chapter.querySelectorAll(".chart")];
      const empty = boards.length ? boards.every((one) => one.hidden) && (words.length > 0 || pictures.every((one) => one.hidden))
        : pictures.length > 0 && pictures.every((one) => one.hidden);
      chapter.hidden = empty;
      const link = document.querySelector(`nav a[href="#${chapter.id}"]`);
      if (link) link.hidden = empty;
    }
    this.tell();
  }

  tell() {
    const words = terms(this.words.value);
    const here = this.tables.filter((table) => !this.other(table.node.dataset.setting));
    const shown = here.filter((table) => !table.node.hidden);
    const told = [`${shown.reduce((sum, table) => sum + table.left, 0)} rows`];
    const plural = (n, one, more) => `${n} ${n === 1 ? one : more}`;
    const lacking = new Set();
    for (const bound of words.map(comparison).filter(Boolean)) {
      const without = here.filter((table) => table.node.hidden && table.column(bound[1]) < 0);
      if (without.length) told.push(plural(without.length, `board has no column ${bound[1]}`, `boards have no column ${bound[1]}`));
      for (const table of without) lacking.add(table);
    }
    const rest = here.filter((table) => table.node.hidden && !lacking.has(table)).length;
    if (rest) told.push(plural(rest, "board has no such row", "boards have no such row"));
    this.count.textContent = told.join("; ");
    const printed = [this.setting.value === all ? "" : `setting ${this.setting.value}`, this.words.value ? `rows with "${this.words.value}"` : ""].filter(Boolean);
    this.said.textContent = printed.length ? `Not the whole report: only ${printed.join(", ")}.` : "";
  }

  parameters() {
    const found = new URLSearchParams();
    if (this.setting.value !== all) found.set("setting", this.setting.value);
    if (this.words.value) found.set("words", this.words.value);
    for (const table of this.tables) for (const [name, value] of Object.entries(table.state())) found.set(`${table.id}.${name}`, value);
    return found.toString();
  }

  remember(anchor = this.anchor()) {
    const parameters = this.parameters();
    const hash = anchor || parameters ? `#${anchor}${parameters ? `&${parameters}` : ""}` : location.pathname + location.search;
    history.replaceState(null, "", hash);
  }

  anchor() {
    const given = location.hash.slice(1).split("&")[0];
    try {
      return decodeURIComponent(given);
    } catch {
      return "";  // somebody's address is not percent-encoded as it should be
    }
  }

  follow() {
    // an address with parameters sets the view; one without, as of a link to a chapter, keeps it
    const [, ...rest] = location.hash.slice(1).split("&");
    const anchor = this.anchor();
    if (rest.length) {
      const given = new URLSearchParams(rest.join("&"));
      const known = [...this.setting.options].some((option) => option.value === given.get("setting"));
      this.setting.value = known ? given.get("setting") : all;
      this.words.value = given.get("words") || "";
      for (const table of this.tables) {
        const mine = [...given].filter(([name]) => name.startsWith(`${table.id}.`));
        table.restore(Object.fromEntries(mine.map(([name, value]) => [name.slice(table.id.length + 1), value])));
      }
      this.show();
    } else this.remember(anchor);
    const place = anchor.startsWith("trial-") ? null : document.getElementById(anchor);
    if (place?.tagName === "DETAILS") place.open = true;
    place?.scrollIntoView();
  }
}
