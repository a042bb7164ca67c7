// What is wrong with the page of a report in `frame`, by its `report.json`: a list of lines.

// Pixels by which a text may touch another, or the edge: boxes have room around the letters.
const TOUCH = 2;
// Cells show numbers in three digits, or two where they are small.
const ROUNDED = 0.06;

const overlap = (a, b) => {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  return Math.min(width, height) > TOUCH;
};

function pictures(page, wrong) {
  for (const svg of page.querySelectorAll(".chart svg")) {
    const name = svg.closest("figure, details.fold")?.id ?? "a chart";
    const edge = svg.viewBox.baseVal.width ? svg.viewBox.baseVal : svg.getBBox();
    const texts = [...svg.querySelectorAll("text")].map((text) => ({ said: text.textContent.trim(), box: text.getBBox(), turned: text.hasAttribute("transform") }));
    for (const { said, box, turned } of texts.filter(({ turned }) => !turned)) {
      const cut = box.x < edge.x - TOUCH || box.x + box.width > edge.x + edge.width + TOUCH;
      if (cut || box.y < edge.y - TOUCH || box.y + box.height > edge.y + edge.height + TOUCH) {
        wrong.push(`${name}: "${said}" leaves the picture`);
      }
    }
    texts.forEach((a, i) => {
      const other = texts.slice(i + 1).find((b) => !a.turned && !b.turned && a.said && b.said && overlap(a.box, b.box));
      if (other) wrong.push(`${name}: "${a.said}" and "${other.said}" overlap`);
    });
    if (!svg.querySelector("rect, circle, path, polyline, polygon")) wrong.push(`${name}: nothing is drawn`);
  }
}

function equal(cell, value) {
  if (value === null || value === false) return cell === "";
  if (value === true) return cell === "yes";
  if (typeof value === "number") return Math.abs(Number(cell) - value) <= ROUNDED * Math.abs(value);
  return cell === String(value);
}

function numbers(page, report, wrong) {
  for (const { id, rows } of report.charts) {
    const chart = page.getElementById(id);
    if (!chart?.querySelector("svg")) {
      wrong.push(`${id}: is in report.json, and not on the page`);
      continue;
    }
    const shown = [...chart.querySelectorAll("table tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
    if (shown.length !== rows.length) wrong.push(`${id}: ${shown.length} rows, and ${rows.length} in report.json`);
    rows.forEach((row, i) => Object.entries(row).forEach(([key, value], column) => {
      const cell = shown[i]?.[column] ?? "";
      if (!equal(cell, value)) wrong.push(`${id}: row ${i + 1}, ${key}: "${cell}", and ${value} in report.json`);
    }));
  }
  const charts = page.querySelectorAll("figure[id], details.fold[id]").length;
  if (charts !== report.charts.length) wrong.push(`${charts} charts, and ${report.charts.length} in report.json`);
}

function lines(page, width, wrong) {
  const root = page.documentElement;
  if (root.scrollWidth > width) wrong.push(`the page is ${root.scrollWidth} pixels wide, expected at most ${width}`);
  for (const element of page.querySelectorAll("h1, h2, p, dt, dd, li, figcaption, summary, td, th")) {
    const style = page.defaultView.getComputedStyle(element);
    const hides = ["hidden", "clip"].includes(style.overflowX);
    if (hides && element.scrollWidth > element.clientWidth + TOUCH) wrong.push(`"${element.textContent.trim().slice(0, 60)}" is cut`);
  }
}

function faults(frame, report) {
  const page = frame.contentDocument;
  const wrong = [];
  page.querySelectorAll("details").forEach((details) => { details.open = true; });
  lines(page, frame.clientWidth, wrong);
  pictures(page, wrong);
  numbers(page, report, wrong);
  return wrong;
}
