// Draws, opens pictures, sends them to the server, and shows its answers.

const SEND_EVERY_MS = 120;
const MOST_BARS = 12; // of one digit; with more classes, only the most probable ones are shown
const INVITATION = "Draw, and the answer appears here.";
const element = (id) => document.getElementById(id);
const paper = element("paper");
const boxes = element("boxes");
const side = paper.width;
const classes = JSON.parse(element("answer").dataset.classes);
const darkMode = matchMedia("(prefers-color-scheme: dark)");

let strokes = []; // {width, points: [[x, y], ...]} in pixels of the canvas
let current = null; // the stroke that is drawn now
let picture = null; // {file, image, area: [left, top, width, height]}; image is null if the browser cannot show it
let answer = null; // of the server
let timer = 0;
let isSending = false;
let isChanged = false;

// ---- the drawing

function colour(name) {
  return getComputedStyle(paper).getPropertyValue(name);
}

function redraw() {
  const pen = paper.getContext("2d");
  pen.fillStyle = colour("--paper");
  pen.fillRect(0, 0, side, side);
  if (picture?.image) pen.drawImage(picture.image, ...picture.area);
  pen.strokeStyle = colour("--ink");
  pen.lineCap = pen.lineJoin = "round";
  for (const { width, points } of strokes) {
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const point of points) pen.lineTo(...point); // to the same place: a dot
    pen.stroke();
  }
  element("undo").disabled = !strokes.length && !picture;
  element("clear").disabled = !strokes.length && !picture;
}

function change() {
  answer = null;
  drawBoxes();
  redraw();
  isChanged = true;
  element("answer").ariaBusy = "true";
  timer ||= setTimeout(send, SEND_EVERY_MS);
}

function placeOf(event) {
  const area = paper.getBoundingClientRect();
  return [((event.clientX - area.left) * side) / area.width, ((event.clientY - area.top) * side) / area.height];
}

paper.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  paper.setPointerCapture(event.pointerId);
  current = { width: Number(element("pen").value), points: [placeOf(event)] };
  strokes.push(current);
  change();
});

paper.addEventListener("pointermove", (event) => {
  if (!current || !paper.hasPointerCapture(event.pointerId)) return;
  const passed = event.getCoalescedEvents?.() ?? []; // missing where a phone gets the page over plain http
  current.points.push(...(passed.length ? passed : [event]).map(placeOf));
  change();
});

for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, () => (current = null));

function undo() {
  if (!strokes.pop()) picture = null;
  change();
}

function clear() {
  strokes = [];
  picture = null;
  change();
}

// ---- pictures

async function open(file) {
  if (!file) return;
  clear();
  const image = await createImageBitmap(file).catch(() => null);
  const scale = image ? Math.min(side / image.width, side / image.height) : 1;
  const [width, height] = image ? [image.width * scale, image.height * scale] : [side, side];
  picture = { file, image, area: [(side - width) / 2, (side - height) / 2, width, height] };
  change();
}

for (const [button, input] of [["open", "file"], ["photo", "camera"]]) {
  element(button).addEventListener("click", () => element(input).click());
  element(input).addEventListener("change", (event) => {
    open(event.target.files[0]);
    event.target.value = ""; // so that the same file can be opened again
  });
}
document.addEventListener("paste", (event) => open(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  open(event.dataTransfer.files[0]);
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") undo();
  else if (event.key === "Delete" || event.key === "Backspace" || event.key === "Escape") clear();
  else return;
  event.preventDefault();
});
element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);

// ---- questions to the server: one at a time, and the newest picture next

async function send() {
  timer = 0;
  if (isSending) return;
  isSending = true;
  while (isChanged) {
    isChanged = false;
    const found = await read();
    if (isChanged) continue; // the answer is out of date
    element("answer").ariaBusy = "false";
    answer = found;
    if (answer?.error && picture && !answer.size) picture = null; // a file that was refused
    redraw();
    drawBoxes();
    show();
  }
  isSending = false;
}

async function read() {
  if (!strokes.length && !picture) return null;
  try {
    const body = picture && !strokes.length ? picture.file : await drawing();
    const response = await fetch("read", { method: "POST", body });
    if (response.ok) return await response.json();
    return { error: response.status === 413 ? "The file is too large." : "The program refused the picture.", digits: [] };
  } catch {
    return { error: "The program that shows this page does not answer.", digits: [] };
  }
}

function drawing() {
  const small = document.createElement("canvas"); // half as large: read in half the time, and as well
  small.width = small.height = picture ? side : side / 2;
  small.getContext("2d").drawImage(paper, 0, 0, small.width, small.height);
  return new Promise((resolve) => small.toBlob(resolve));
}

// ---- the answer

function drawBoxes() {
  const pen = boxes.getContext("2d");
  pen.clearRect(0, 0, side, side);
  if (!answer?.size || (!picture && answer.digits.length < 2)) return;
  const [left, top, width] = picture && !strokes.length ? picture.area : [0, 0, side];
  const scale = width / answer.size[0];
  pen.font = "bold 20px system-ui, sans-serif";
  pen.lineWidth = 3;
  for (const digit of answer.digits) {
    const [x0, y0, x1, y1] = digit.box.map((value, index) => value * scale + (index % 2 ? top : left));
    pen.strokeStyle = pen.fillStyle = colour(digit.doubt ? "--doubt" : "--accent");
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    const text = digit.label + (digit.doubt ? "?" : "");
    const above = y0 >= 26 ? y0 - 26 : Math.min(y1, side - 26);
    pen.fillRect(x0 - 1.5, above, pen.measureText(text).width + 10, 26);
    pen.fillStyle = colour("--on-accent");
    pen.fillText(text, x0 + 3.5, above + 20);
  }
}

function make(tag, parent, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  parent.append(made);
  return made;
}

function percent(share) {
  return `${Math.floor(share * 100)}%`;
}

function remark() {
  if (!answer) return INVITATION;
  if (answer.error) return answer.error;
  const doubtful = answer.digits.filter((digit) => digit.doubt).length;
  if (answer.digits.length > 1) {
    return `${answer.digits.length} digits${doubtful ? `, ${doubtful} of them doubtful (?)` : ""}.`;
  }
  const [digit] = answer.digits;
  const sentence = digit.doubt || `the network is ${percent(digit.probability)} sure.`;
  return sentence[0].toUpperCase() + sentence.slice(1);
}

function show() {
  const digits = answer?.digits ?? [];
  const isDoubtful = digits.some((digit) => digit.doubt);
  const [reading, sentence] = element("answer").querySelector(".verdict").children;
  reading.textContent = (answer?.lines ?? []).join("\n") + (isDoubtful ? "?" : "");
  sentence.textContent = remark();
  element("digits").replaceChildren();
  if (!digits.length) bars(make("div", element("digits"), "", "bars"), [], classes);
  for (const digit of digits) showDigit(digit, digits.length > 1);
}

function showDigit(digit, isOneOfSeveral) {
  const card = make("article", element("digits"), "", isOneOfSeveral ? "digit several" : "digit");
  const figure = make("figure", card);
  const image = make("img", figure);
  image.src = digit.image;
  image.alt = `Input of the network for ${digit.label}`;
  image.width = image.height = 28;
  make("figcaption", figure, isOneOfSeveral ? digit.label + (digit.doubt ? "?" : "") : "The network's input: 28 × 28 pixels");
  const list = make("div", card, "", "bars");
  const names = isOneOfSeveral || classes.length > MOST_BARS ? null : classes;
  bars(list, digit.top, names ?? digit.top.slice(0, isOneOfSeveral ? 3 : MOST_BARS).map(({ label }) => label));
  if (digit.doubt && isOneOfSeveral) make("p", card, digit.doubt, "doubt");
}

// The bars of `names`, in an order that does not change while someone draws.
function bars(list, top, names) {
  const shares = new Map(top.map(({ label, probability }) => [label, probability]));
  for (const name of names.slice(0, MOST_BARS)) {
    const share = shares.get(name) ?? 0;
    make("span", list, name);
    make("i", make("span", list, "", "bar")).style.width = `${100 * share}%`;
    make("span", list, top.length ? percent(share) : "");
  }
}

element("photo").hidden = navigator.maxTouchPoints === 0;
darkMode.addEventListener("change", () => change());
redraw();
show();
