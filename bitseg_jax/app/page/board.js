// A mouse clicks or draws. A finger taps; moving, it scrolls the page.
let points = null;
const share = (event) => {
  const box = element.querySelector('.entities image').getBoundingClientRect();
  return [(event.clientX - box.left) / box.width,
          (event.clientY - box.top) / box.height];
};
const draw = () => {
  const {width, height} = element.querySelector('.entities image').attributes;
  element.querySelector('.drawing').setAttribute('d', points.map(
    ([x, y], k) => (k ? 'L' : 'M') + x * width.value + ' ' + y * height.value
  ).join(''));
};
element.addEventListener('pointerdown', (event) => {
  points = null;
  if (event.button || !event.target.closest('.entities')) return;
  const at = share(event);
  if (Math.min(...at) >= 0 && Math.max(...at) < 1) points = [at];
});
element.addEventListener('pointermove', (event) => {
  if (!points) return;
  const at = share(event), last = points[points.length - 1];
  const box = element.querySelector('.entities image').getBoundingClientRect();
  const moved = Math.hypot(
    (at[0] - last[0]) * box.width, (at[1] - last[1]) * box.height);
  if (moved < (points.length > 1 ? 3 : 8)) return;  // a hand is never still
  if (event.pointerType === 'touch') points = null;
  else { points.push(at); draw(); }
});
element.addEventListener('pointerup', () => {
  if (!points) return;
  trigger('select', {points});
  element.querySelector('.drawing').setAttribute('d', '');
  points = null;
});
element.addEventListener('pointercancel', () => { points = null; });
element.addEventListener('dragstart', (event) => event.preventDefault());
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('select', {act: button.dataset.act});
});
// What one points at is named above the picture, where it can wrap.
let hint = '';
element.addEventListener('pointerover', (event) => {
  const caption = element.querySelector('.caption');
  if (!caption) return;
  hint = hint || caption.textContent;
  caption.textContent = event.target.closest('.entity')?.dataset.says || hint;
});
