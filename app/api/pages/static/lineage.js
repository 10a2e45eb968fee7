// The lineage of a checkpoint: where it is wider than its place, the checkpoint itself is in the middle.

const box = document.querySelector(".lineage");
const own = box?.querySelector(".current");
if (box && own) {
  const [outer, inner] = [box.getBoundingClientRect(), own.getBoundingClientRect()];
  box.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
}
