// The figure follows its form, tables are sorted and copied, a link opens what it leads to.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const form = document.getElementById("controls");
const chart = document.getElementById("chart");
const specification = document.getElementById("spec").textContent;
const ONE_COLUMN = 700; // pixels below which panels stand one below the other
const MARGIN = 62; // pixels beside a panel for its axis
const QUIET = 1; // vega's level for errors alone: it warns of a panel without the line of raw bytes

function state() {
  const chosen = new FormData(form);
  const shown = chosen.getAll("modality");
  return {
    protocol: chosen.get("protocol"),
    size: chosen.get("size"),
    log: chosen.getAll("log"),
    hidden: all("[name=modality]", form).map((box) => box.value).filter((name) => !shown.includes(name)),
    shown,
  };
}

const scaleOf = (log) => (log ? { type: "log", zero: undefined } : { type: "linear", zero: false });

async function drawNow() {
  const now = state();
  const spec = JSON.parse(specification, (key, value) => {
    const scale = (key === "x" || key === "y") && value?.scale;
    return scale?.type ? { ...value, scale: { ...scale, ...scaleOf(now.log.includes(key)) } } : value;
  });
  for (const parameter of spec.params) parameter.value = now[parameter.name];
  const columns = chart.clientWidth < ONE_COLUMN || now.shown.length < 2 ? 1 : 2;
  spec.columns = columns;
  spec.spec.width = Math.floor(chart.clientWidth / columns - MARGIN);
  const options = { renderer: "svg", actions: false, loader: { target: "_self" }, logLevel: QUIET };
  await window.vegaEmbed(chart, spec, options);
  for (const part of all(".by-protocol")) part.hidden = part.dataset.protocol !== now.protocol;
  chart.dataset.drawn = `${now.protocol} ${now.size} ${now.log} ${now.shown}`;
  document.getElementById("status").textContent = `Shown: ${now.protocol} ratio of ${now.shown.join(", ") || "nothing"}`;
}

let drawing = Promise.resolve();
const draw = () => (drawing = drawing.then(drawNow)); // one after the other

function sort(button) {
  const head = button.closest("th");
  const body = button.closest("table").tBodies[0];
  const column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  const key = (row) => row.cells[column].dataset.v;
  const compare = head.classList.contains("n")
    ? (a, b) => Number(key(a)) - Number(key(b))
    : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
  for (const other of all("[aria-sort]", head.parentNode)) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const [filled, empty] = [(row) => key(row) !== "", (row) => key(row) === ""].map((of) => [...body.rows].filter(of));
  body.append(...filled.sort((a, b) => (up ? compare(a, b) : compare(b, a))), ...empty);
}

const CONTROL = /[&%$#_{}]/g;
const SIGNS = { "−": "$-$", "±": "$\\pm$", "α": "$\\alpha$", "β": "$\\beta$", "Δ": "$\\Delta$", "→": "$\\to$",
  "×/÷": "$\\times/\\div$", "×": "$\\times$" };

function written(table, kind) {
  const rows = [...table.rows].map((row) => [...row.cells]);
  if (kind === "csv") {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return rows.map((row) => row.map((cell) => quoted(cell.dataset.v ?? cell.textContent)).join(",") + "\n").join("");
  }
  const escaped = (text) =>
    Object.entries(SIGNS).reduce((t, [sign, tex]) => t.replaceAll(sign, tex), text.replace(CONTROL, "\\$&"));
  const lines = rows.map((row) => row.map((cell) => escaped(cell.textContent)).join(" & ") + " \\\\");
  const letters = rows[0].map((cell) => (cell.classList.contains("n") ? "r" : "l")).join("");
  return [`\\begin{tabular}{${letters}}`, "\\toprule", lines[0], "\\midrule", ...lines.slice(1), "\\bottomrule",
    "\\end{tabular}", ""].join("\n");
}

async function copy(button) {
  const table = button.closest(".table").querySelector("table");
  const text = written(table, button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a browser may keep the clipboard from pages on disk
    const field = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  document.getElementById("status").textContent = `Copied ${table.rows.length} lines`;
  const words = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = words), 1200);
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target?.closest("details"); at; at = at.parentElement.closest("details")) at.open = true;
  if (target?.matches("details")) {
    target.scrollIntoView();
    target.querySelector("summary").focus();
  }
}

document.documentElement.classList.add("js");
form.addEventListener("change", draw);
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => all("#laws details").forEach((folded) => (folded.open = true)));
document.addEventListener("click", ({ target }) => {
  if (target.matches("thead button")) sort(target);
  if (target.matches("[data-copy]")) copy(target);
});
let width = chart.clientWidth;
new ResizeObserver(() => {
  if (chart.clientWidth !== width) draw();
  width = chart.clientWidth;
}).observe(chart);
await draw();
reveal();
