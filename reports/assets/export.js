"use strict";
// Files that the page makes of its own content, without a network.

const fileName = (title) => title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 80) || "board";

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function asCsv(names, numeric, rows) {
  // numbers with all digits of the page; a text that a spreadsheet would run as a formula gets an apostrophe
  const harmless = (text) => (/^\s*[=+\-@]/.test(text.normalize("NFKC")) ? `'${text}` : text);
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const cell = ([text, value], i) => (numeric[i] && value !== null ? String(value) : text.trim() === "-" ? "" : quoted(harmless(text)));
  return [names.map((name) => quoted(harmless(name))).join(","), ...rows.map((row) => row.map(cell).join(","))].join("\r\n") + "\r\n";
}

const LATEX = { "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
  "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "·": "$\\cdot$", "<": "\\textless{}", ">": "\\textgreater{}",
  "[": "{[}", "]": "{]}" };
const latex = (text) => [...text].map((sign) => LATEX[sign] || sign).join("");

function asLatex(names, numeric, rows, best) {
  const line = (cells) => `  ${cells.join(" & ")} \\\\`;
  const last = numeric.lastIndexOf(false, numeric.indexOf(true) < 0 ? numeric.length - 1 : numeric.indexOf(true) - 1);
  const body = rows.map((row, at) => line(row.map(([text], i) => (best.includes(at) && i === last ? `\\textbf{${latex(text)}}` : latex(text)))));
  return ["% needs \\usepackage{booktabs}", `\\begin{tabular}{${numeric.map((number) => (number ? "r" : "l")).join("")}}`, "  \\toprule",
    line(names.map(latex)), "  \\midrule", ...body, "  \\bottomrule", "\\end{tabular}", ""].join("\n");
}

function asSvg(chart) {
  // a file of its own: the colours of the page as numbers, and the page behind the chart
  const style = getComputedStyle(chart);
  const root = getComputedStyle(document.documentElement);
  const [, , width, height] = chart.getAttribute("viewBox").split(" ").map(Number);
  const copy = chart.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.style.cssText = `background: ${root.getPropertyValue("--paper").trim()}; font-family: sans-serif`;
  const text = new XMLSerializer().serializeToString(copy);
  return [text.replaceAll("currentColor", style.color).replaceAll("currentcolor", style.color).replaceAll("var(--line)", root.getPropertyValue("--line").trim()), width, height];
}

async function asPng(chart) {
  const [text, width, height] = asSvg(chart);
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(4 * width), Math.round(4 * height)]; // 288 dots per inch
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function chartTools(figure) {
  const chart = figure.querySelector("svg");
  const name = fileName(figure.querySelector("figcaption").textContent);
  const tools = make("p", null, "tools");
  tools.append(
    action("SVG", () => save(`${name}.svg`, "image/svg+xml", asSvg(chart)[0]), "Download this chart as SVG"),
    action("PNG", async () => save(`${name}.png`, "image/png", await asPng(chart)), "Download this chart as PNG"),
  );
  figure.append(tools);
}
