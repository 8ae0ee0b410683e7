#!/bin/sh
# All of the training of the person mask, one step after the other on one core, in the background:
#   setsid nohup nice -n 10 sh recipes/people/train.sh SHARED WORK >> WORK/train.log 2>&1 &
# SHARED is the folder with clothes, cmu, hdri and real, WORK what this may fill (6 GB, environments included). It needs
# WORK/venv and WORK/mpvenv (README.md); SVF is the command of the package, PYTHON=WORK/venv's.
# Started again after a kill it goes on where it was.
set -eu
shared=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
: "${SVF:=svf}"
more=${MORE_HDRI:+--more-hdri $MORE_HDRI}
export OMP_NUM_THREADS=1 LP_NUM_THREADS=1 ANNY_CACHE_DIR="$work/anny_cache" GLOG_minloglevel=3

train() { # folder of the run, then options
    run=$1
    shift
    if [ -f "$run/model/model.safetensors" ] && [ -f "$run/evaluation.json" ]; then
        return
    elif [ -f "$run/config.yaml" ]; then
        $SVF train --config "$run/config.yaml" --resume
    else
        $SVF train --config "$here/mask_nano.yaml" --out "$run" "$@"
    fi
}

# 1. A quick one on a few clips (small pictures, two passes), to begin the long ones with.
if [ -d "$work/data1" ]; then
    train "$work/run/mask1" --data "$work/data1" --size 96 --segmentation.crop-height 96 \
        --segmentation.crop-width 128 --batch-size 8 --epochs 2 --check none
fi
# 2. Data, and a run on it from the weights before: three times.
before=$work/run/mask1/model
longer() { # name of the run, rendered clips, cut-outs pasted, epochs
    if [ ! -f "$work/run/$1/evaluation.json" ]; then
        "$work/venv/bin/python" "$here/make.py" --data "$shared" $more --out "$work/data" \
            --split val --clips 100
        "$work/venv/bin/python" "$here/make.py" --data "$shared" $more --out "$work/data" --clips "$2"
        if [ ! -d "$work/data/train/real_one-by-one-person-detection" ]; then
            "$work/mpvenv/bin/python" "$here/teach.py" --data "$shared/real" --out "$work/data"
        fi
        "$work/mpvenv/bin/python" "$here/paste.py" --data "$shared/real" --out "$work/data" --count "$3"
        "$work/venv/bin/python" "$here/make.py" --data "$shared" --out "$work/data" --clips 0 # lists
    fi
    first=
    if [ -d "$before" ]; then first="--init-from $before"; fi
    train "$work/run/$1" --data "$work/data" $first --epochs "$4"
    before=$work/run/$1/model
}
longer mask2 550 4000 8
longer mask3 1500 4000 8
longer mask4 4000 8000 12
