"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Arms: a legend button shows or hides everything that carries data-arm.
all(".legend button").forEach((button) => button.addEventListener("click", () => {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  all(`[data-arm="${button.value}"]`).forEach((part) => part.toggleAttribute("hidden", !shown));
}));

// Tabs of the token view.
all(".tabs button").forEach((button, first) => {
  const choose = () => all(".tabs button").forEach((other) => {
    other.setAttribute("aria-selected", other === button);
    document.getElementById(other.value).hidden = other !== button;
  });
  button.addEventListener("click", choose);
  if (first === 0) choose();
});

// Curves: one cursor over all panels, values of the bold lines at that step.
const data = JSON.parse(document.getElementById("curve-data")?.textContent ?? "{}");
const show = (value, style) => style === "percent" ? (100 * value).toFixed(1) + " %"
  : value.toFixed(Number(style));
const nearest = (steps, step) => steps.reduce((best, s, i) =>
  Math.abs(s - step) < Math.abs(steps[best] - step) ? i : best, 0);
const resting = new Map(all(".readout").map((line) => [line, line.innerHTML]));

function clear() {
  all(".cursor, .dot").forEach((mark) => mark.remove());
  resting.forEach((html, line) => { line.innerHTML = html; });
}

function point(step) {
  clear();
  for (const box of all(".plotbox")) {
    const panel = data.panels[box.dataset.panel];
    const left = (100 * (step - data.low)) / (data.high - data.low) + "%";
    const line = box.appendChild(document.createElement("i"));
    line.className = "cursor";
    line.style.left = left;
    const readout = box.parentNode.querySelector(".readout");
    readout.textContent = "step " + step;
    for (const [arm, values] of Object.entries(panel.arms)) {
      const value = values[nearest(data.arms[arm].steps, step)];
      const button = document.querySelector(`.legend button[value="${arm}"]`);
      if (value === null || button.getAttribute("aria-pressed") === "false") continue;
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

all(".plotbox").forEach((box) => {
  box.addEventListener("pointermove", (event) => {
    const area = box.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - area.left) / area.width));
    point(Math.round(data.low + share * (data.high - data.low)));
  });
  box.addEventListener("pointerleave", clear);
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

addEventListener("beforeprint", () => all("details").forEach((part) => { part.open = true; }));
