"""How many spikes flip, and whether labels change, when a trained network is folded in float32.

    python benchmarks/fold_flips.py --model demo/run/model demo/clips/val --clips 64

Clips are taken evenly from those of the folder, in order of their paths.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch

import spikevideoformer as svf
from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.deploy.fold import flipped_spikes
from spikevideoformer.video.frames import iter_windows
from spikevideoformer.video.inputs import expand_inputs


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("data", type=Path, help="folder of clips")
    parser.add_argument("--clips", type=int, default=64, help="clips to compare on")
    arguments = parser.parse_args()
    predictor = svf.VideoPredictor.from_pretrained(arguments.model, device="cpu", engine="model")
    folded = svf.fold_for_inference(predictor.model)
    paths = list(expand_inputs([arguments.data]))
    count = min(arguments.clips, len(paths))
    shares = defaultdict(list)
    labels, change, clips_with_flips = 0, 0.0, 0
    for path in (paths[i * len(paths) // count] for i in range(count)):
        clip = next(iter_windows(path, predictor.clip, resize_short=predictor.clip.size))
        video = eval_transform(clip.frames, predictor.clip).unsqueeze(0)
        for name, share in flipped_spikes(predictor.model, folded, video).items():
            shares[name].append(share)
        clips_with_flips += shares["all"][-1] > 0
        before, after = predictor.model(video), folded(video)
        labels += int(before.argmax() != after.argmax())
        change = max(change, ((after - before).norm() / before.norm()).item())
    mean = {name: sum(values) / count for name, values in shares.items()}
    whole = mean.pop("all")
    worst = max(mean, key=mean.__getitem__)
    print(f"{count} clips: {whole:.1e} of all spikes flip, in {clips_with_flips} clips")
    print(f"worst layer: {worst} with {mean[worst]:.1e}")
    print(f"logits change by {change:.1e} of their norm at most; {labels} labels change")


if __name__ == "__main__":
    main()
