"""How often the int8 engine gives the label of the exact one, on the clips of a trained model.

    python benchmarks/int8_agreement.py --model demo/joint/model demo/clips/val

Clips lie in folders of their class. Prints the share of equal labels, both accuracies, and every
clip whose label changed with the two best probabilities of each engine.
"""

import argparse
from pathlib import Path

import spikevideoformer as svf
from spikevideoformer.inference.predictor import PredictionResult


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("data", type=Path, help="folder of class folders of clips")
    arguments = parser.parse_args()
    found = {}
    for engine in ("exact", "int8"):
        predictor = svf.VideoPredictor.from_pretrained(arguments.model, device="cpu", engine=engine)
        found[engine] = {}
        for result in predictor.predict_many(arguments.data, top_k=2):
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
