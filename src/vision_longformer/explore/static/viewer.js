// The image and what is laid over it. Overlays belong to a revision: a tile of an older one is never shown.

export class Viewer {
  constructor({ onProblem, onStale }) {
    this.osd = OpenSeadragon({
      element: document.getElementById("image"),
      drawer: "canvas",
      showNavigationControl: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      maxZoomPixelRatio: 16,
      imageSmoothingEnabled: true,
      animationTime: 0.4,
      crossOriginPolicy: false,
      timeout: 600_000, // the first tile of a large image is made of all of its rows
      tileRetryMax: 3,
      tileRetryDelay: 2000,
    });
    this.onProblem = onProblem;
    this.onStale = onStale; // something changed that the page does not know of, as in another window
    this.image = null;
    this.base = null;
    this.overlay = null;
    this.shown = { kind: null, revision: -1, hidden: "" };
    this.tiles = new Map(); // of the overlay's revision: promises of blobs
    this.opacity = 0.45;
    this.osd.addHandler("tile-invalidated", (event) => this.renew(event));
  }

  open(number, about, tile) {
    this.image = { number, ...about };
    this.base = this.overlay = null;
    this.shown = { kind: null, revision: -1, hidden: "" };
    const source = {
      width: about.width,
      height: about.height,
      tileSize: tile,
      minLevel: 0,
      maxLevel: about.max_level,
      getTileUrl: (level, x, y) => `tiles/${number}/${level}/${x}_${y}`,
    };
    return new Promise((resolve) => {
      this.osd.addOnceHandler("open", () => {
        this.base = this.osd.world.getItemAt(0);
        this.osd.addTiledImage({
          tileSource: {
            ...source,
            getTileUrl: (level, x, y) => `overlay-${number}/${level}/${x}_${y}`, // a key alone
            downloadTileStart: (job) => this.load(job),
            downloadTileAbort: () => {},
          },
          opacity: this.opacity,
          success: ({ item }) => {
            this.overlay = item;
            resolve();
          },
        });
      });
      this.osd.open({ ...source });
    });
  }

  async load(job) {
    job.finish(await this.current(job.tile.level, job.tile.x, job.tile.y), null, "rasterBlob");
  }

  async renew(event) {
    if (event.tiledImage !== this.overlay) return;
    const { level, x, y } = event.tile;
    const blob = await this.current(level, x, y);
    if (!(await event.outdated())) await event.setData(blob, "rasterBlob");
  }

  // The blob of a tile of what is shown now, even if that changes while it is fetched.
  async current(level, x, y) {
    for (;;) {
      const wanted = this.shown;
      const key = `${level}/${x}_${y}`;
      if (!this.tiles.has(key)) this.tiles.set(key, this.fetch(wanted, key));
      const blob = await this.tiles.get(key);
      if (wanted === this.shown) return blob;
    }
  }

  async fetch({ kind, revision, hidden }, key) {
    if (kind === null) return blank();
    try {
      const answer = await fetch(`overlay/${kind}/${this.image.number}/${revision}/${key}?hidden=${hidden}`);
      if (answer.status === 409) this.onStale();
      if (answer.ok && Number(answer.headers.get("x-revision")) === revision) return await answer.blob();
      if (answer.status === 422) this.onProblem((await answer.json()).error);
    } catch {
      this.onProblem("The server does not answer: is the command still running?");
    }
    return blank();
  }

  // Show an overlay of a revision without some classes, or none.
  show(kind, revision, classes = []) {
    const hidden = classes.join(",");
    const same = this.shown.revision === revision && this.shown.hidden === hidden;
    if (this.shown.kind === kind && (same || kind === null)) return;
    this.shown = { kind, revision, hidden };
    this.tiles = new Map();
    if (this.overlay) this.overlay.requestInvalidate(true);
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    if (this.overlay) this.overlay.setOpacity(opacity);
  }

  // Pixels of the image for a point of the view, in CSS pixels from its top left corner; and back.
  toImage(x, y) {
    const point = this.base.viewerElementToImageCoordinates(new OpenSeadragon.Point(x, y));
    return [point.x, point.y];
  }

  toView(x, y) {
    return this.base.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
  }

  // CSS pixels per pixel of the image.
  scale() {
    return this.base.viewportToImageZoom(this.osd.viewport.getZoom(true));
  }

  bounds() {
    const { x, y } = this.osd.viewport.getContainerSize();
    return [...this.toImage(0, 0), ...this.toImage(x, y)];
  }

  centre() {
    const { x, y } = this.osd.viewport.getContainerSize();
    return this.toImage(x / 2, y / 2);
  }

  goTo(x, y) {
    const viewport = this.osd.viewport;
    viewport.panTo(this.base.imageToViewportCoordinates(x, y));
    if (this.scale() < 2) viewport.zoomTo(this.base.imageToViewportZoom(2));
  }

  zoomBy(factor, x, y) {
    const viewport = this.osd.viewport;
    const point = x === undefined ? undefined : viewport.viewerElementToViewportCoordinates(new OpenSeadragon.Point(x, y));
    viewport.zoomBy(factor, point);
    viewport.applyConstraints();
  }

  panBy(dx, dy) {
    this.osd.viewport.panBy(this.osd.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(dx, dy)));
  }
}

let transparent = null;
function blank() {
  transparent ??= new Promise((resolve) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    canvas.toBlob(resolve);
  });
  return transparent;
}
