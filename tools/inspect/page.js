"use strict";
// One button for all folds.
const expand = document.getElementById("expand");
if (expand) {
    expand.hidden = false;
    expand.addEventListener("click", () => {
        const folds = document.querySelectorAll("details.kernel");
        const open = ![...folds].every((fold) => fold.open);
        folds.forEach((fold) => { fold.open = open; });
        expand.textContent = open ? "Close all kernels" : "Open all kernels";
    });
}
// A link into a fold opens it.
addEventListener("hashchange", openTarget);
function openTarget() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && (target.matches("details") ? target : target.querySelector("details"));
    if (fold) fold.open = true;
}
openTarget();
// Does every picture show something? The answer is kept in the page for whoever doubts it.
const empty = [];
const pictures = document.querySelectorAll("svg");
for (const picture of pictures) {
    const drawn = [...picture.querySelectorAll("path, rect:not(.ground), circle, text")].filter(
        (shape) => { const box = shape.getBBox(); return box.width > 0 || box.height > 0; });
    if (drawn.length === 0) empty.push(picture.getAttribute("aria-label"));
}
document.documentElement.dataset.pictures = pictures.length;
document.documentElement.dataset.empty = empty.join(", ");
