"use strict";
// Shows the clip: a glTF model whose animation has one second per moment, angle curves, and pictures with their cameras.
// A body is a person at a moment. The part of the address behind # sets frame, person, others, skin (percent), bones,
// follow, view, play: #frame=12&view=1

const clip = JSON.parse(document.getElementById("clip").textContent);
const count = clip.count;
const at = clip.names.map(() => Array(count).fill(-1)), bodies = clip.names.map(() => []);
clip.moments.forEach((moment, row) => { at[clip.people[row]][moment] = row; bodies[clip.people[row]].push(row); });
const element = (id) => document.getElementById(id);
const wanted = new URLSearchParams(location.hash.slice(1));
const PAPER = 0xdfe3e6, NEAR = 0.02, FAR = 2000;

const bytes = Uint8Array.from(atob(element("model").textContent), (c) => c.charCodeAt(0));
element("download").href = URL.createObjectURL(new Blob([bytes], { type: "model/gltf-binary" }));
element("note").textContent = clip.note;

const controls = {};
for (const name of ["frame", "person", "others", "skin", "bones", "follow", "view"]) controls[name] = element(name);
controls.frame.max = count - 1;
clip.names.forEach((name, person) => controls.person.add(new Option(name, person)));
element("who").hidden = clip.names.length < 2;
element("play").hidden = count < 2;
controls.view.checked = clip.views.some(Boolean) && clip.titles.length > 0;  // people are looked at in their pictures
for (const [name, control] of Object.entries(controls)) {
  if (!wanted.has(name)) continue;
  if (control.type === "checkbox") control.checked = wanted.get(name) !== "0";
  else control.value = wanted.get(name);
}
if (!clip.views.some(Boolean)) { element("through").hidden = true; controls.view.checked = false; }

const canvas = element("scene");
let renderer;
try {
  renderer = new THREE.WebGLRenderer({ canvas, antialias: true, preserveDrawingBuffer: true });
} catch (error) {
  element("problem").hidden = false;
  element("problem").textContent = "This browser offers no WebGL: " + error.message;
  throw error;
}
const scene = new THREE.Scene();
scene.add(new THREE.HemisphereLight(0xffffff, 0x8a8478, 2.2));
const sun = new THREE.DirectionalLight(0xffffff, 1.6);
scene.add(sun);
const grid = floor();
scene.add(grid);

const orbit = new THREE.PerspectiveCamera(40, 1, NEAR, FAR);
const handles = new THREE.OrbitControls(orbit, canvas);
const lens = new THREE.PerspectiveCamera(40, 1, NEAR, FAR);
lens.matrixAutoUpdate = false;

let mixer = null, playing = false, position = Number(controls.frame.value), last = null;
const skins = [], bones = [];

// The body of the chosen person at a moment, or -1.
const chosen = (moment) => at[Number(controls.person.value)][moment];
const nearest = (person, moment) => bodies[person].reduce((a, b) =>
  Math.abs(clip.moments[b] - moment) < Math.abs(clip.moments[a] - moment) ? b : a);
// If the chosen person is not there, the view stays where a film last or next shows her, or goes to whom else it finds.
function watched(moment) {
  if (chosen(moment) >= 0) return chosen(moment);
  const there = clip.rate ? undefined : at.map((rows) => rows[moment]).find((row) => row >= 0);
  return there ?? nearest(Number(controls.person.value), moment);
}

const start = watched(Math.round(position));
let target = new THREE.Vector3(...clip.pelvis[start]);
handles.target.copy(target);
const side = clip.facing[start] + 0.5;  // seen from the front, a little from one side
const others = at.map((rows, person) => clip.rate ? nearest(person, clip.moments[start]) : rows[clip.moments[start]])
  .filter((row) => row >= 0);
const reach = Math.max(0, ...others.map((row) => target.distanceTo(new THREE.Vector3(...clip.pelvis[row]))));
const away = 3.2 + (controls.others.checked ? Math.min(1.6 * reach, 9) : 0);  // so that others are seen, too
orbit.position.set(target.x + away * Math.sin(side), target.y + 0.125 * away, target.z + away * Math.cos(side));

new THREE.GLTFLoader().parse(bytes.buffer, "", (model) => {
  scene.add(model.scene);
  clip.names.forEach((_, person) => {
    skins.push(model.scene.getObjectByName(`person_${person}_skin`));
    bones.push(model.scene.getObjectByName(`person_${person}_bones`));
  });
  for (const mesh of [...skins, ...bones]) mesh.frustumCulled = false;
  mixer = new THREE.AnimationMixer(model.scene);
  // The last frame is at the end of the animation, where it would begin anew.
  model.animations[0].duration = count;
  mixer.clipAction(model.animations[0]).play();
  document.body.dataset.ready = "1";
  show();
}, (error) => {
  element("problem").hidden = false;
  element("problem").textContent = "The model cannot be shown: " + error.message;
});

// Squares of half a metre.
function floor() {
  const tile = document.createElement("canvas"), pen = tile.getContext("2d");
  tile.width = tile.height = 64;
  pen.fillStyle = "#cfd5d9";
  pen.fillRect(0, 0, 64, 64);
  pen.fillStyle = "#c3cacf";
  pen.fillRect(0, 0, 32, 32);
  pen.fillRect(32, 32, 32, 32);
  const texture = new THREE.CanvasTexture(tile), metres = 60;
  texture.colorSpace = THREE.SRGBColorSpace;
  texture.wrapS = texture.wrapT = THREE.RepeatWrapping;
  texture.repeat.set(metres, metres);
  texture.anisotropy = renderer.capabilities.getMaxAnisotropy();
  const mesh = new THREE.Mesh(new THREE.PlaneGeometry(metres, metres), new THREE.MeshBasicMaterial({ map: texture }));
  mesh.rotation.x = -Math.PI / 2;
  return mesh;
}

// Pictures are decoded when they are needed, and the next two of a film before that; HELD of them are kept.
const pictures = new Map(), HELD = 32;
let shownPicture = null;
function picture(index) {
  for (const moment of clip.rate ? [index, index + 1, index + 2] : [index]) {
    if (!clip.views[moment] || pictures.has(moment)) continue;
    const image = new Image(), texture = new THREE.Texture(image), own = { texture, ready: false };
    texture.colorSpace = THREE.SRGBColorSpace;
    pictures.set(moment, own);
    image.onload = () => {
      own.ready = texture.needsUpdate = true;
      if (Math.round(position) === moment) show();
    };
    image.src = clip.views[moment].image;
  }
  const far = [...pictures.keys()].sort((a, b) => Math.abs(b - index) - Math.abs(a - index));
  for (const moment of far.slice(0, Math.max(0, far.length - HELD))) {
    pictures.get(moment).texture.dispose();
    pictures.delete(moment);
  }
  if (pictures.get(index).ready) shownPicture = pictures.get(index).texture;
  return shownPicture;
}

// The projection of the picture's camera: u = camera[0] . (x, -y, -z) / -z for a point (x, y, z) of the page's frame.
function look(view) {
  const [w, h] = view.size, [k0, k1] = view.camera;
  const depth = (FAR + NEAR) / (NEAR - FAR), shift = 2 * FAR * NEAR / (NEAR - FAR);
  lens.projectionMatrix.set(
    2 * k0[0] / w, -2 * k0[1] / w, 1 - 2 * k0[2] / w, 0,
    -2 * k1[0] / h, 2 * k1[1] / h, 2 * k1[2] / h - 1, 0,
    0, 0, depth, shift,
    0, 0, -1, 0);
  lens.projectionMatrixInverse.copy(lens.projectionMatrix).invert();
}

function show() {
  const index = Math.min(count - 1, Math.round(position));
  controls.frame.value = index;
  const row = chosen(index), title = clip.titles[index] ?? "", name = clip.names[Number(controls.person.value)];
  element("caption").textContent = row >= 0 ? clip.captions[row] : `${title}: without ${name}`;
  element("place").textContent = clip.rate ? `${index + 1} of ${count}, ${(clip.begins + position / clip.rate).toFixed(2)} s`
                                           : `${index + 1} of ${count}`;
  curves(index);
  if (!mixer) return;
  mixer.setTime(clip.rate ? Math.min(position, count - 1) : index);  // nobody is between two people
  const percent = Number(controls.skin.value);
  clip.names.forEach((_, person) => {
    const seen = at[person][index] >= 0 && (controls.others.checked || person === Number(controls.person.value));
    bones[person].visible = seen && controls.bones.checked;
    skins[person].visible = seen && percent > 0;
    skins[person].material.opacity = percent / 100;
    skins[person].material.transparent = percent < 100;
    skins[person].material.depthWrite = true;
  });
  grid.position.y = clip.floor[index];
  const pelvis = new THREE.Vector3(...clip.pelvis[watched(index)]);
  if (controls.follow.checked) {
    orbit.position.add(pelvis).sub(target);
    handles.target.add(pelvis).sub(target);
    grid.position.x = Math.round(pelvis.x);
    grid.position.z = Math.round(pelvis.z);
  }
  target = pelvis;
  render(index);
}

// Skins are glass: the farthest is drawn first. A picture's camera is at zero.
function inOrder(index, eye) {
  const depth = at.map((rows) => rows[index] < 0 ? 0 : eye.distanceTo(new THREE.Vector3(...clip.pelvis[rows[index]])));
  const order = depth.map((_, person) => person).sort((a, b) => depth[b] - depth[a]);
  order.forEach((person, rank) => { skins[person].renderOrder = 1 + rank; });
}

function render(index) {
  const width = canvas.clientWidth, height = canvas.clientHeight;
  renderer.setPixelRatio(window.devicePixelRatio);
  renderer.setSize(width, height, false);
  const view = controls.view.checked ? clip.views[index] : null;
  inOrder(index, view ? new THREE.Vector3() : orbit.position);
  renderer.setScissorTest(false);
  renderer.setViewport(0, 0, width, height);
  if (!view) {
    grid.visible = true;
    scene.background = new THREE.Color(PAPER);
    orbit.aspect = width / height;
    orbit.updateProjectionMatrix();
    handles.enabled = true;
    handles.update();
    lit(orbit);
    return;
  }
  handles.enabled = false;
  grid.visible = false;
  renderer.setClearColor(PAPER);
  renderer.clear();
  const scale = Math.min(width / view.size[0], height / view.size[1]);
  const w = view.size[0] * scale, h = view.size[1] * scale, left = (width - w) / 2, bottom = (height - h) / 2;
  renderer.setViewport(left, bottom, w, h);
  renderer.setScissor(left, bottom, w, h);
  renderer.setScissorTest(true);
  scene.background = picture(index);
  look(view);
  sun.position.set(0.5, 1, 1);
  renderer.render(scene, lens);
}

// From over the shoulder of who looks.
function lit(camera) {
  sun.position.copy(camera.position).sub(handles.target);
  sun.position.y += 0.6 * sun.position.length();
  renderer.render(scene, camera);
}

const figures = clip.panels.map((panel) => {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const name = document.createElement("span"), value = document.createElement("span");
  const plot = document.createElement("canvas");
  name.textContent = panel.title;
  caption.append(name, value);
  figure.append(caption, plot);
  element("angles").append(figure);
  plot.addEventListener("click", (event) => {
    const share = event.offsetX / plot.clientWidth;
    if (clip.rate) position = Math.round(share * (count - 1));
    else {
      const row = Math.round(share * (clip.moments.length - 1));
      position = clip.moments[row];
      controls.person.value = clip.people[row];
    }
    show();
  });
  return { panel, plot, value };
});

function curves(index) {
  for (const { panel, plot, value } of figures) {
    const ratio = window.devicePixelRatio, w = plot.clientWidth, h = plot.clientHeight, pen = plot.getContext("2d");
    plot.width = w * ratio;
    plot.height = h * ratio;
    pen.scale(ratio, ratio);
    // Along a motion goes time, else one body after the other.
    const steps = clip.rate ? count : clip.moments.length;
    const [low, high] = panel.spans[Number(controls.person.value)];
    const x = (i) => steps > 1 ? 4 + i / (steps - 1) * (w - 8) : w / 2;
    const y = (v) => h - 2 - (v - low) / (high - low) * (h - 4);
    pen.fillStyle = clip.colours.beyond;
    const [bottom, top] = panel.limits;
    if (bottom !== null && bottom > low) pen.fillRect(0, y(Math.min(bottom, high)), w, h);
    if (top !== null && top < high) pen.fillRect(0, 0, w, y(Math.max(top, low)));
    const own = bodies[Number(controls.person.value)], row = chosen(index);
    for (const [side, values] of Object.entries(panel.lines)) {
      pen.strokeStyle = pen.fillStyle = clip.colours[side];
      pen.lineWidth = 1.2;
      if (clip.rate && own.length > 1) {
        pen.beginPath();
        own.forEach((r, n) => {
          const m = clip.moments[r], on = n && clip.moments[own[n - 1]] === m - 1;
          if (on) pen.lineTo(x(m), y(values[r])); else pen.moveTo(x(m), y(values[r]));
        });
        pen.stroke();
      } else {
        const shown = controls.others.checked && !clip.rate ? values.map((_, r) => r) : own;
        for (const r of shown) {
          const half = r === row && shown.length > 1 ? 3 : 1.5;
          pen.fillRect(x(clip.rate ? clip.moments[r] : r) - half, y(values[r]) - half, 2 * half, 2 * half);
        }
      }
    }
    if (clip.rate || row >= 0) {
      pen.fillStyle = "#0006";
      pen.fillRect(x(clip.rate ? index : row) - 0.5, 0, 1, h);
    }
    // -0 + 0 is 0.
    value.textContent = row < 0 ? "" :
      Object.values(panel.lines).map((values) => (Math.round(values[row]) + 0) + "°").join(" / ");
  }
}

function tick(now) {
  if (!playing) return;
  position += (now - last) / 1000 * (clip.rate || 1);
  last = now;
  if (position > count - 1) position = 0;
  show();
  requestAnimationFrame(tick);
}
element("play").addEventListener("click", () => {
  playing = !playing;
  element("play").textContent = playing ? "pause" : "play";
  last = performance.now();
  if (playing) requestAnimationFrame(tick);
});
if (wanted.get("play") === "1") element("play").click();
controls.frame.addEventListener("input", () => { position = Number(controls.frame.value); show(); });
for (const name of ["person", "others", "skin", "bones", "follow", "view"]) controls[name].addEventListener("input", show);
handles.addEventListener("change", () => {
  if (playing || !mixer || controls.view.checked) return;
  inOrder(Math.min(count - 1, Math.round(position)), orbit.position);
  lit(orbit);
});
window.addEventListener("resize", show);
show();
