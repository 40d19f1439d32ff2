// Draws the charts, and shows the values at the pointer below them.
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 392, 8, 204];

function add(parent, tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return parent.appendChild(made);
}

// Positions between `start` and `end` for values. A logarithmic axis is for values above 0 that span more than a decade.
function axis(values, start, end, mayBeLogarithmic = false) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const logarithmic = mayBeLogarithmic && low > 0 && high > 10 * low;
  const scale = logarithmic ? Math.log10 : (value) => value;
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const place = (value) => start + ((end - start) * (scale(value) - scale(low))) / (scale(high) - scale(low));
  return { low, high, logarithmic, place };
}

// Round numbers on an axis.
function ticks({ low, high, logarithmic }, whole) {
  const found = [];
  if (logarithmic) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of high > 1000 * low ? [1] : [1, 2, 5]) found.push(Number(`${digit}e${power}`));
    return found.filter((value) => low <= value && value <= high);
  }
  const power = 10 ** Math.floor(Math.log10((high - low) / 5));
  let step = power * [1, 2, 5, 10].find((factor) => factor * power * 5 >= high - low);
  if (whole) step = Math.max(1, Math.round(step));
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-6; n++) found.push(Number((n * step).toPrecision(6)));
  return found;
}

function style(colour) {
  return `line c${colour % 6}${colour > 5 ? " dashed" : ""}`;
}

function draw(svg) {
  const chart = JSON.parse(svg.dataset.chart);
  const short = (value) => Number(value.toPrecision(4)).toString();
  const share = (value, digits) => `${Number((100 * value).toFixed(digits))}%`;
  const ys = chart.lines.flatMap((line) => line.y);
  const across = axis(chart.lines.flatMap((line) => line.x), LEFT, RIGHT);
  const up = axis(ys, BOTTOM, TOP, chart.y.includes("loss"));
  const isShare = chart.y.includes("accuracy");
  for (const value of ticks(up)) {
    add(svg, "path", { class: "grid", d: `M${LEFT} ${up.place(value)}H${RIGHT}` });
    const text = isShare ? share(value, 4) : short(value);
    add(svg, "text", { x: LEFT - 5, y: up.place(value) + 4, "text-anchor": "end" }, text);
  }
  for (const value of ticks(across, chart.x !== "probability")) {
    add(svg, "path", { class: "grid", d: `M${across.place(value)} ${TOP}V${BOTTOM + 4}` });
    add(svg, "text", { x: across.place(value), y: BOTTOM + 17, "text-anchor": "middle" }, short(value));
  }
  add(svg, "text", { x: (LEFT + RIGHT) / 2, y: 237, "text-anchor": "middle" }, chart.x);
  const [figure, readings, legend] = [svg.parentElement, new Map(), new Set()];
  for (const { name, x, y, colour } of chart.lines) {
    const points = x.map((value, index) => [across.place(value).toFixed(1), up.place(y[index]).toFixed(1)]);
    add(svg, "polyline", { class: style(colour), points: points.join(" ") });
    if (x.length < 30) add(svg, "path", { class: `dots ${style(colour)}`, d: points.map((at) => `M${at}h0`).join("") });
    x.forEach((value, index) => {
      const text = `${name} ${isShare ? share(y[index], 2) : short(y[index])}`;
      readings.set(value, [...(readings.get(value) ?? []), text]);
    });
    if (legend.has(name)) continue;
    legend.add(name);
    const entry = figure.querySelector(".legend").appendChild(document.createElement("span"));
    const key = add(entry, "svg", { viewBox: "0 0 20 8", "aria-hidden": "true" });
    add(key, "path", { class: style(colour), d: "M0 4H20" });
    entry.append(` ${name} `);
  }
  const cursor = add(svg, "path", { class: "cursor" });
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * 400;
    const distance = (value) => Math.abs(across.place(value) - at);
    const near = [...readings.keys()].reduce((best, value) => (distance(value) < distance(best) ? value : best));
    cursor.setAttribute("d", `M${across.place(near)} ${TOP}V${BOTTOM + 4}`);
    figure.querySelector(".readout").textContent = `${chart.x} ${short(near)}: ${readings.get(near).slice(0, 8).join(", ")}`;
  });
}

document.querySelectorAll("svg[data-chart]").forEach(draw);
