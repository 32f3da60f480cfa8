/** Encodes pictures as JPEG, in the order they come, beside the page's own thread. */
let canvas = new OffscreenCanvas(1, 1);
let context = canvas.getContext("bitmaprenderer");

self.onmessage = async ({ data: { id, bitmap, quality } }) => {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    context = canvas.getContext("bitmaprenderer");
  }
  context.transferFromImageBitmap(bitmap);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
  const bytes = await blob.arrayBuffer();
  self.postMessage({ id, bytes }, [bytes]);
};
