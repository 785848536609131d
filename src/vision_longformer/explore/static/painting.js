// Strokes: drawn over the image, and painted with a mouse, a pen or a finger. Two fingers move and zoom.

export class Painting {
  constructor(viewer, { brush, colourOf, onStroke }) {
    this.viewer = viewer;
    this.brush = brush; // () => {label, radius in CSS pixels}
    this.colourOf = colourOf;
    this.onStroke = onStroke;
    this.canvas = document.getElementById("paint");
    this.strokes = [];
    this.marks = []; // {x, y, sign} of what was asked to be alike
    this.current = null;
    this.pointers = new Map();
    this.hovering = null; // where the mouse or pen is, to show how large the brush is
    this.canvas.addEventListener("pointerleave", () => this.hover(null));
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, (event) => this[name](event));
    }
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      viewer.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY);
    }, { passive: false });
    for (const name of ["update-viewport", "open", "resize"]) viewer.osd.addHandler(name, () => this.draw());
  }

  activate(active) {
    this.canvas.classList.toggle("active", active);
    if (!active) this.hover(null);
  }

  hover(place) {
    if (place === this.hovering) return;
    this.hovering = place;
    this.draw();
  }

  show(strokes, marks) {
    this.strokes = strokes;
    this.marks = marks;
    this.draw();
  }

  pointerdown(event) {
    if (event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (this.pointers.size > 1) {
      this.current = null; // two fingers move the image
      this.draw();
      return;
    }
    const { label, radius } = this.brush();
    const point = this.viewer.toImage(event.offsetX, event.offsetY);
    this.current = { class: label, points: [point], radius: radius / this.viewer.scale() };
    this.draw();
  }

  pointermove(event) {
    this.hover(event.pointerType === "touch" ? null : [event.offsetX, event.offsetY]);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.offsetX, event.offsetY];
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, now);
    this.pointers.set(event.pointerId, now);
    if (!this.current) return;
    const last = this.current.points.at(-1);
    const point = this.viewer.toImage(...now);
    const step = Math.hypot(point[0] - last[0], point[1] - last[1]) * this.viewer.scale();
    if (step >= 3 && this.current.points.length < 2000) {
      this.current.points.push(point);
      this.draw();
    }
  }

  pinch(moved, before, now) {
    const [other] = [...this.pointers].filter(([id]) => id !== moved).map(([, place]) => place);
    const far = (place) => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
    this.viewer.panBy((before[0] - now[0]) / 2, (before[1] - now[1]) / 2);
    this.viewer.zoomBy(far(now) / far(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }

  pointerup(event) {
    this.pointers.delete(event.pointerId);
    if (!this.current) return;
    const stroke = this.current;
    this.current = null;
    this.strokes = [...this.strokes, stroke];
    this.onStroke(stroke);
  }

  pointercancel(event) {
    this.pointers.delete(event.pointerId);
    this.current = null;
    this.draw();
  }

  draw() {
    const { canvas, viewer } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!viewer.base) return;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.current ? [...this.strokes, this.current] : this.strokes) this.line(context, stroke);
    for (const mark of this.marks) this.mark(context, mark);
    if (this.hovering && !this.current) this.ring(context, ...this.hovering);
  }

  ring(context, x, y) {
    for (const [colour, width] of [["#000", 3], ["#fff", 1.25]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, this.brush().radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  line(context, stroke) {
    const places = stroke.points.map(([x, y]) => this.viewer.toView(x, y));
    const radius = Math.max(1.5, stroke.radius * this.viewer.scale());
    const erases = stroke.class === null;
    if (erases && stroke !== this.current) return;
    for (const [colour, wider] of [["#000", 2], [erases ? "#fff" : this.colourOf(stroke.class), 0]]) {
      context.strokeStyle = context.fillStyle = colour;
      context.globalAlpha = wider ? 0.55 : 0.9;
      context.lineWidth = 2 * radius + wider;
      context.beginPath();
      if (places.length === 1) {
        context.arc(places[0].x, places[0].y, radius + wider / 2, 0, 2 * Math.PI);
        context.fill();
      } else {
        places.forEach(({ x, y }, number) => (number ? context.lineTo(x, y) : context.moveTo(x, y)));
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  mark(context, { x, y, sign }) {
    const place = this.viewer.toView(x, y);
    for (const [colour, width] of [["#000", 5], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.arc(place.x, place.y, 9, 0, 2 * Math.PI);
      context.moveTo(place.x - 5, place.y);
      context.lineTo(place.x + 5, place.y);
      if (sign > 0) {
        context.moveTo(place.x, place.y - 5);
        context.lineTo(place.x, place.y + 5);
      }
      context.stroke();
    }
  }
}
