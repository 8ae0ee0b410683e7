"""How often the int8 engine gives the label of the exact one, on the clips of a trained model.

    python benchmarks/int8_agreement.py --model demo/run/model demo/clips/val

Clips lie in folders of their class. Prints the share of equal labels, both accuracies, and every
clip whose label changed with the two best probabilities of each engine. With a segmentation model
it prints the share of pixels that get the same class in each video (or folder of pictures) there.
"""

import argparse
from pathlib import Path

import spikevideoformer as svf
from spikevideoformer.tasks.classification.answer import PredictionResult
from spikevideoformer.tasks.segmentation.predictor import VideoSegmenter
from spikevideoformer.video.inputs import expand_inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("data", type=Path, help="folder of class folders of clips")
    arguments = parser.parse_args()
    if svf.SpikeVideoFormer.from_pretrained(arguments.model).task == "segmentation":
        compare_masks(arguments.model, arguments.data)
    else:
        compare_labels(arguments.model, arguments.data)


def compare_masks(model: str, data: Path) -> None:
    exact, int8 = (
        VideoSegmenter.from_pretrained(model, device="cpu", engine=engine)
        for engine in ("exact", "int8")
    )
    for video in expand_inputs([data]):
        if not isinstance(video, str):
            raise SystemExit(str(video))
        same = pixels = 0
        for a, b in zip(exact.segment(video), int8.segment(video), strict=True):
            same, pixels = same + int((a.mask == b.mask).sum()), pixels + a.mask.size
        print(f"{video}: the same class for {same / pixels:.1%} of {pixels} pixels")


def compare_labels(model: str, data: Path) -> None:
    found = {}
    for engine in ("exact", "int8"):
        predictor = svf.VideoPredictor.from_pretrained(model, device="cpu", engine=engine)
        found[engine] = {}
        for result in predictor.predict_many(data, top_k=2):
            if not isinstance(result, PredictionResult):
                raise SystemExit(f"{result.path}: {result.reason}")
            found[engine][result.path] = result
    exact, int8 = found["exact"], found["int8"]
    same = 0
    for path in exact:
        if exact[path].labels[0].index == int8[path].labels[0].index:
            same += 1
        else:
            print(path, *(_best(result) for result in (exact[path], int8[path])), sep="  ")
    print(f"{len(exact)} clips, the same label for {same / len(exact):.1%}")
    for engine, results in found.items():
        right = sum(r.labels[0].name == Path(p).parent.name for p, r in results.items())
        print(f"{engine}: accuracy {right / len(results):.1%}")


def _best(result: PredictionResult) -> str:
    return f"{result.engine}: " + ", ".join(f"{x.name} {x.probability:.2f}" for x in result.labels)


if __name__ == "__main__":
    main()
