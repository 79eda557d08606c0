"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const pressed = (button) => button.getAttribute("aria-pressed") === "true";

// Arms: a legend button shows or hides everything in its view that carries data-arm.
all(".legend button").forEach((button) => button.addEventListener("click", () => {
  button.setAttribute("aria-pressed", !pressed(button));
  all(`[data-arm="${button.value}"]`, button.closest(".view")).forEach((part) =>
    part.toggleAttribute("hidden", !pressed(button)));
}));

// Papers and words: what any filter leaves out is hidden (a cell of a table only fades).
const filters = all(".filter button");
function sift() {
  const out = (kind, value) => value !== undefined
    && filters.some((b) => b.name === kind && b.value === value && !pressed(b));
  all("[data-paper], [data-word]").forEach((part) => {
    const gone = out("paper", part.dataset.paper) || out("word", part.dataset.word);
    if (part.matches("td, a")) part.classList.toggle("faded", gone);
    else part.hidden = gone;
  });
  all("[data-empty]").forEach((note) => {
    note.hidden = all("[data-word]", note.parentNode).some((part) => !part.hidden);
  });
}
filters.forEach((button) => button.addEventListener("click", () => {
  button.setAttribute("aria-pressed", !pressed(button));
  sift();
}));

// A link into a card opens it.
function unfold() {
  const card = location.hash && document.getElementById(location.hash.slice(1));
  if (!card || !card.matches("details")) return;
  for (let part = card; part; part = part.parentElement.closest("details")) part.open = true;
  card.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();

// Tabs of the token view.
all(".tabs").forEach((tabs) => all("button", tabs).forEach((button, first) => {
  const choose = () => all("button", tabs).forEach((other) => {
    other.setAttribute("aria-selected", other === button);
    document.getElementById(other.value).hidden = other !== button;
  });
  button.addEventListener("click", choose);
  if (first === 0) choose();
}));

// Curves: one cursor over all panels of a view, values of the bold lines at that step.
const show = (value, style) => style === "percent" ? (100 * value).toFixed(1) + " %"
  : value.toFixed(Number(style));
const nearest = (steps, step) => steps.reduce((best, s, i) =>
  Math.abs(s - step) < Math.abs(steps[best] - step) ? i : best, 0);
const resting = new Map(all(".readout").map((line) => [line, line.innerHTML]));

function clear() {
  all(".cursor, .dot").forEach((mark) => mark.remove());
  resting.forEach((html, line) => { line.innerHTML = html; });
}

function point(view, data, step) {
  clear();
  for (const box of all(".plotbox", view)) {
    const panel = data.panels[box.dataset.panel];
    const left = (100 * (step - data.low)) / (data.high - data.low) + "%";
    const line = box.appendChild(document.createElement("i"));
    line.className = "cursor";
    line.style.left = left;
    const readout = box.parentNode.querySelector(".readout");
    readout.textContent = "step " + step;
    for (const [arm, values] of Object.entries(panel.arms)) {
      const value = values[nearest(data.arms[arm].steps, step)];
      if (value === null || !pressed(view.querySelector(`.legend button[value="${arm}"]`))) continue;
      const dot = box.appendChild(document.createElement("i"));
      dot.className = "dot a" + arm;
      dot.style.left = left;
      dot.style.top = 100 * (1 - (value - panel.low) / (panel.high - panel.low)) + "%";
      const entry = readout.appendChild(document.createElement("span"));
      entry.className = "a" + arm;
      entry.append(data.arms[arm].label + " ");
      entry.appendChild(document.createElement("b")).textContent = show(value, panel.style);
    }
  }
}

all(".curve-data").forEach((source) => {
  const data = JSON.parse(source.textContent), view = source.closest(".view");
  all(".plotbox", view).forEach((box) => {
    box.addEventListener("pointermove", (event) => {
      const area = box.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - area.left) / area.width));
      point(view, data, Math.round(data.low + share * (data.high - data.low)));
    });
    box.addEventListener("pointerleave", clear);
  });
});

// Token tooltips; without this script the browser shows the same text as a title.
const tip = document.body.appendChild(document.createElement("div"));
tip.className = "tip";
tip.hidden = true;
document.addEventListener("pointerover", (event) => {
  const token = event.target.closest(".t");
  tip.hidden = !token;
  if (!token) return;
  if (token.title) { token.dataset.tip = token.title; token.removeAttribute("title"); }
  tip.textContent = token.dataset.tip;
  const area = token.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(area.left, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = (area.bottom + tip.offsetHeight + 12 < innerHeight
    ? area.bottom + 7 : area.top - tip.offsetHeight - 7) + "px";
});

all(".copy").forEach((button) => button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(button.previousElementSibling.textContent);
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}));

// Paper shows what a click would: everything that was measured.
addEventListener("beforeprint", () => all('details:not([data-word="not run"])').forEach((part) => {
  part.open = true;
}));
