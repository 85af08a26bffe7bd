// A finger that scrolls the page ends in pointercancel, so it leaves no mark.
element.addEventListener('pointerup', (event) => {
  if (event.button || !event.target.closest('.entities')) return;
  const box = element.querySelector('.entities image').getBoundingClientRect();
  const point = [(event.clientX - box.left) / box.width,
                 (event.clientY - box.top) / box.height];
  if (Math.min(...point) >= 0 && Math.max(...point) < 1)
    trigger('select', {point});
});
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
