// Unpacks the data of the page, builds its tables, and shows single trials.

async function unpack(id) {
  const octets = Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([octets]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

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
  const { axes, columns, shown, sort, short } = trials;
  const varying = axes.filter((axis) => new Set(columns[axis]).size > 1);
  const none = columns.key.map(() => null);
  const texts = [...varying, "status"].map((name) => {
    const full = columns[name];
    const index = varying.includes(name);
    return ["attack", "defense"].includes(name) ? { name, shown: full.map((label) => short[label]), full, sort: none, index } : { name, shown: full, sort: none, index };
  });
  const numbers = shown.map(([name, good, words], i) => ({ name, shown: words, sort: sort[i], heat: true, good }));
  const key = { name: "key", shown: columns.key.map((text) => text.slice(0, 8)), sort: none };
  const group = varying.indexOf("attack");
  return {
    title: "Trials", setting: "", caption: [], columns: [...texts, ...numbers, key],
    places: true, // rows are trials; several may share a key
    ...(group < 0 ? {} : { group }),
  };
}

function facts(pairs) {
  const list = make("dl");
  for (const [name, value] of pairs) if (value) list.append(make("dt", name), make("dd", value));
  return list;
}

function metricTable(values) {
  const table = make("table");
  for (const [name, value, unit, meaning] of values) {
    const row = table.insertRow();
    row.append(make("td", name, "text name"), make("td", `${value} ${unit}`), make("td", meaning, "text"));
  }
  const scroll = make("div", null, "scroll");
  scroll.append(table);
  return scroll;
}

function show(trials, i) {
  // first the result, then how to repeat it; versions and machine stand folded
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
  const first = trials.shown.map(([name, , words]) => [name, words[i] === "-" ? "" : words[i]]);
  const parts = [make("h3", `Trial ${short}`), facts([["status", status], ["attack", of("attack")], ["defense", of("defense")], ...first]), command];
  if (trials.logs[of("log")].length) parts.push(make("h3", "End of the log"), make("pre", trials.logs[of("log")].join("\n")));
  const scores = trials.scores[of("key")];
  if (scores) parts.push(make("h3", "Scores of the input detector (* its main score)"), facts(scores));
  const values = trials.metrics.map(([name, unit, meaning], at) => [name, trials.values[at][i], unit, meaning]);
  const known = values.filter(([, value]) => value !== "-");
  if (known.length) parts.push(make("h3", "Metrics"), metricTable(known));
  const gallery = [...document.querySelectorAll(".gallery")].find((one) => one.querySelector("b").textContent === of("attack"));
  if (gallery) parts.push(fold("Pictures of this attack", gallery.cloneNode(true)));
  parts.push(fold("Setting, versions and machine", facts([
    ...trials.axes.map((axis) => [axis, of(axis)]), ["training", of("changes")], ["access", of("access")],
    ["kind of defense", of("defense_kind")], ["key", of("key")], ["all stages", `python -m bench show ${short}`],
    ["pictures", pictures], ...trials.facts[of("facts")],
  ])));
  about.replaceChildren(...parts);
  const dialog = document.getElementById("trial");
  if (!dialog.open) dialog.showModal();
}

async function start() {
  const data = await unpack("data");
  for (const [name, anchor] of Object.entries(data.cards)) cards.set(name, anchor);
  data.trials.columns.key.forEach((key, i) => { if (key) keys.set(key.slice(0, 8), keys.get(key.slice(0, 8)) ?? i); });
  const boards = [...data.boards, { part: "trials", ...tableOfTrials(data.trials) }];
  let view = null;
  const changed = () => { view.tell(); view.remember(); };
  const tables = boards.map((board, i) => {
    const table = new Table(board, `t${i}`, changed);
    document.querySelector(`.boards[data-part="${board.part}"]`).append(table.node);
    return table;
  });
  document.querySelectorAll(".chart").forEach(chartTools);
  const [setting, words, count, said] = ["setting", "words", "count", "said"].map((id) => document.getElementById(id));
  const settings = [...new Set(tables.map((table) => table.node.dataset.setting).filter(Boolean))];
  setting.append(...[all, ...settings].map((name) => make("option", name)));
  setting.parentNode.hidden = settings.length < 2;
  view = new View(tables, { setting, words, count, said });
  view.show();
  const filtered = () => { view.show(); view.remember(); };
  setting.addEventListener("change", filtered);
  words.addEventListener("input", filtered);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  copies(document.getElementById("link"), () => location.href);
  window.addEventListener("beforeprint", () => {
    for (const table of tables) Object.assign(table, { limit: Infinity }).draw();
    for (const details of document.querySelectorAll("details:not(.folds details)")) details.open = true;
    const told = new Set(); // notes about data and machine that many boards share are printed once
    for (const notes of document.querySelectorAll(".folds details:not(:has(.columns))")) {
      notes.open = !told.has(notes.textContent);
      told.add(notes.textContent);
    }
  });
  const print = document.getElementById("print-trials");
  print.addEventListener("change", () => { document.getElementById("trials").classList.toggle("printed", print.checked); });
  const header = document.querySelector("header .command");
  copies(header.querySelector("button"), () => header.querySelector("code").textContent);
  const dialog = document.getElementById("trial");
  dialog.addEventListener("close", () => { if (view.anchor().startsWith("trial-")) view.remember(""); });
  const follow = () => {
    view.follow();
    const found = /^trial-(\d+)$/.exec(view.anchor());
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
