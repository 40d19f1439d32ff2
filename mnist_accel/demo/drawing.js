// The drawing area: Gradio runs this with `element`, `props`, `trigger` and `watch` of the component (see gr.HTML).
// Gradio's own Sketchpad needs WebGL and a tool to be chosen before it draws (docs/log.md).

const SEND_EVERY_MS = 120;
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
const sent = document.createElement("canvas"); // half as large: read in half the time, and as well
sent.width = sent.height = canvas.width / 2;
let timer = 0;
let isBlank = true;
let last = null;

function wipe() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  isBlank = true;
}

// At most one picture in SEND_EVERY_MS; Gradio drops those that are out of date.
function sendSoon() {
  timer ||= setTimeout(() => {
    timer = 0;
    sent.getContext("2d").drawImage(canvas, 0, 0, sent.width, sent.height);
    props.value = isBlank ? "" : sent.toDataURL("image/png");
    trigger("input");
  }, SEND_EVERY_MS);
}

function drawTo(event) {
  const area = canvas.getBoundingClientRect();
  const scale = canvas.width / area.width;
  const here = [(event.clientX - area.left) * scale, (event.clientY - area.top) * scale];
  pen.beginPath();
  pen.moveTo(...(last ?? here)); // to the same place: a dot
  pen.lineTo(...here);
  pen.stroke();
  last = here;
}

canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  // MNIST's strokes are about an eighth of a digit's height wide; people draw digits about two thirds of the area high.
  pen.lineWidth = canvas.width / 13;
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "black";
  last = null;
  drawTo(event);
  isBlank = false;
  sendSoon();
});

canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  const passed = event.getCoalescedEvents?.() ?? []; // missing where a phone gets the page over plain http
  for (const point of passed.length ? passed : [event]) drawTo(point);
  sendSoon();
});

canvas.addEventListener("clear", () => {
  wipe();
  sendSoon();
});

// The value was set by Python: a picture that was opened, to be shown here.
watch("value", () => {
  wipe();
  if (!props.value) return;
  const picture = new Image();
  picture.onload = () => {
    pen.drawImage(picture, (canvas.width - picture.width) / 2, (canvas.height - picture.height) / 2);
    isBlank = false;
  };
  picture.src = props.value;
});

wipe();
