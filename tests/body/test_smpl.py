"""SMPL from files in the official format, made here: small, and some of them malicious."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch.autograd import gradcheck

from spikevideoformer.body.rotations import matrix_from_6d, matrix_from_axis_angle
from spikevideoformer.body.smpl import (
    SMPL_JOINTS,
    SMPL_PARENTS,
    SmplBody,
    convert_smpl,
    load_body,
)

from ..payload import Payload

VERTICES = 40
TREE = [[2**32 - 1, *SMPL_PARENTS[1:]], list(range(24))]
F64 = torch.float64


def model(seed: int = 0, directions: int = 10) -> dict[str, NDArray[Any]]:
    """A body of 40 vertices with the entries of the official file; a sparse regressor."""
    rng = np.random.default_rng(seed)
    regressor = rng.random((24, VERTICES)) * (rng.random((24, VERTICES)) < 0.2)
    regressor[:, 0] += 0.1
    return {
        "v_template": rng.normal(size=(VERTICES, 3)),
        "shapedirs": rng.normal(size=(VERTICES, 3, directions)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.array(TREE, np.uint32),
        "posedirs": rng.normal(size=(VERTICES, 3, 207)),
        "f": rng.integers(0, VERTICES, (70, 3)).astype(np.uint32),
    }


def regressed(entries: dict[str, NDArray[Any]], betas: NDArray[Any]) -> NDArray[Any]:
    """Joints as SMPL defines them: shape the vertices first, then regress."""
    shaped = entries["v_template"] + sum(
        beta * entries["shapedirs"][:, :, k] for k, beta in enumerate(betas)
    )
    return np.array(
        [sum(w * v for w, v in zip(row, shaped, strict=True)) for row in entries["J_regressor"]]
    )


# --- Files as Python 2, scipy and chumpy write them ----------------------------------------------


def fake_class(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> Any:
    """An importable class of that module and name, without the library."""
    made = type(name, (), {"__module__": module})
    parts = module.split(".")
    for i in range(len(parts)):
        parent = ".".join(parts[: i + 1])
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    setattr(sys.modules[module], name, made)
    return made


def holding(kind: Any, **state: Any) -> Any:
    thing = kind()
    thing.__dict__.update(state)
    return thing


def sparse(kind: Any, dense: NDArray[Any], *, by_rows: bool) -> Any:
    across, along = np.nonzero(dense if by_rows else dense.T)
    values = dense[across, along] if by_rows else dense[along, across]
    starts = np.searchsorted(across, np.arange(dense.shape[not by_rows] + 1))
    return holding(
        kind,
        _shape=dense.shape,
        maxprint=50,
        indices=along.astype(np.int32),
        indptr=starts.astype(np.int32),
        data=values,
    )


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("layout", ["csc", "_csc", "csr", "dense"])
def test_official_pickle(
    protocol: int, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = model(directions=300 if layout == "_csc" else 10)
    holder: dict[str, Any] = dict(entries)
    if layout != "dense":
        kind = fake_class(monkeypatch, f"scipy.sparse.{layout}", f"{layout.strip('_')}_matrix")
        by_rows = layout == "csr"
        holder["J_regressor"] = sparse(kind, entries["J_regressor"], by_rows=by_rows)
        chumpy = fake_class(monkeypatch, "chumpy.ch", "Ch")
        holder["shapedirs"] = holding(chumpy, x=entries["shapedirs"], _dirty_vars={"x"})
        holder["v_template"] = np.asfortranarray(entries["v_template"])
        holder["bs_style"], holder["weight"] = "lbs", np.float64(3)
        content = pickle.dumps(holder, protocol=protocol)
        if protocol < 3:  # as numpy 1 and Python 2 name them, the latter with plain strings
            content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            assert b"numpy.core.multiarray" in content
            assert b"copy_reg" in content or protocol == 2
    else:
        content = pickle.dumps(holder, protocol=protocol)
    monkeypatch.undo()  # the converter has neither library
    source, out = tmp_path / "model.pkl", tmp_path / "smpl.safetensors"
    source.write_bytes(content)
    convert_smpl(source, out)
    body = load_body(out)
    rest = body.joints(torch.eye(3).repeat(24, 1, 1), torch.zeros(3))
    np.testing.assert_allclose(rest, regressed(entries, np.zeros(10)), atol=1e-6)
    betas = np.random.default_rng(1).normal(size=10)
    shaped = body.joints(torch.eye(3).repeat(24, 1, 1), torch.zeros(3), torch.tensor(betas).float())
    np.testing.assert_allclose(shaped, regressed(entries, betas), atol=1e-5)


def test_bytes_of_python_2(tmp_path: Path) -> None:
    """Python 2 writes the bytes of an array as a str, which Python 3 never does."""

    def array(values: list[int]) -> bytes:
        raw = np.array(values, "<i4").tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
            + b"(I%d\nt" % len(values)
            + b"cnumpy\ndtype\n(S'i4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
            + b"U" + bytes([len(raw)]) + raw + b"tb"
        )  # fmt: skip

    source = tmp_path / "model.pkl"
    source.write_bytes(
        b"(d"
        + b"".join(
            b"S'%s'\n" % name + array([1, -200, 3]) + b"s"
            for name in (b"v_template", b"shapedirs", b"kintree_table")
        )
        + b"S'J_regressor'\n" + array([7]) + b"s."
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"J_regressor of size \(1,\); give SMPL with 24 joints"):
        convert_smpl(source, tmp_path / "smpl.safetensors")


def test_npz(tmp_path: Path) -> None:
    entries = model()
    np.savez(tmp_path / "model.npz", **entries)  # type: ignore[arg-type]
    convert_smpl(tmp_path / "model.npz", tmp_path / "smpl.safetensors")
    body = load_body(tmp_path / "smpl.safetensors")
    np.testing.assert_allclose(body.joint_template, regressed(entries, np.zeros(10)), atol=1e-6)
    with safe_open(tmp_path / "smpl.safetensors", "np") as file:
        assert sorted(file.keys()) == ["joint_shape_directions", "joint_template", "parents"]
        assert file.get_tensor("parents").tolist() == list(SMPL_PARENTS)
        assert "right_hand" in file.metadata()["joint_names"]


# --- The body ------------------------------------------------------------------------------------


@pytest.fixture
def body() -> SmplBody:
    entries = model()
    regressor = entries["J_regressor"]
    directions = np.einsum("jv,vck->jck", regressor, entries["shapedirs"])
    return SmplBody(torch.tensor(regressor @ entries["v_template"]), torch.tensor(directions))


def test_joints_by_products_of_4x4_matrices(body: SmplBody) -> None:
    """As the published SMPL code moves its joints."""
    rng = np.random.default_rng(2)
    pose, betas, transl = rng.normal(size=(24, 3)), rng.normal(size=10), rng.normal(size=3)
    rotations = matrix_from_axis_angle(torch.tensor(pose))
    rest = regressed(model(), betas)
    worlds: list[NDArray[Any]] = []
    for j, parent in enumerate(SMPL_PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        local[:3, 3] = rest[j] - (rest[parent] if j else 0)
        worlds.append(worlds[parent] @ local if j else local)
    expected = np.array([world[:3, 3] for world in worlds]) + transl
    found = body.joints(rotations, torch.tensor(transl), torch.tensor(betas))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_one_shape_for_a_whole_clip(body: SmplBody) -> None:
    rotations = matrix_from_6d(torch.randn(2, 5, 24, 6, dtype=F64))
    translation, betas = torch.randn(2, 5, 3, dtype=F64), torch.randn(2, 1, 10, dtype=F64)
    joints = body.joints(rotations, translation, betas)
    assert joints.shape == (2, 5, 24, 3)
    alone = body.joints(rotations[1, 4], translation[1, 4], betas[1, 0])
    torch.testing.assert_close(joints[1, 4], alone)
    mean = body.joints(rotations, translation)
    torch.testing.assert_close(mean, body.joints(rotations, translation, 0 * betas))


def test_the_skeleton_of_one_body(body: SmplBody) -> None:
    rotations = matrix_from_6d(torch.randn(24, 6, dtype=F64))
    betas, translation = torch.randn(10, dtype=F64), torch.randn(3, dtype=F64)
    joints = body.joints(rotations, translation, betas)
    skeleton = body.skeleton(betas)
    torch.testing.assert_close(skeleton.joints(rotations, joints[0]), joints)
    assert skeleton.hips == body.hips == (1, 2)
    assert len(body.symmetric_pairs) == 9
    assert body.num_shape == 10 and body.joint_names == SMPL_JOINTS


def test_gradients(body: SmplBody) -> None:
    inputs = (
        torch.randn(24, 6, dtype=F64, requires_grad=True),
        torch.randn(3, dtype=F64, requires_grad=True),
        torch.randn(10, dtype=F64, requires_grad=True),
    )
    assert gradcheck(lambda r, t, s: body.joints(matrix_from_6d(r), t, s), inputs, fast_mode=True)


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_is_executed(protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    source = tmp_path / "model.pkl"
    source.write_bytes(pickle.dumps(model() | {"extra": Payload(trace)}, protocol=protocol))
    with pytest.raises(
        ValueError, match=r"model.pkl cannot be read \(it asks for posix.mkdir, which"
    ):
        convert_smpl(source, tmp_path / "smpl.safetensors")
    assert not trace.exists()
    pickle.loads(source.read_bytes())  # the usual way
    assert trace.exists()
    assert not (tmp_path / "smpl.safetensors").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1/0'\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\nobject\nS'__class__'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x18object.__init_subclass__\x93.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"cchumpy.ch\nMatVecMult\n.",
        b"cspikevideoformer.files\nwrite_text\n.",
        b"c_codecs\ndecode\n.",
    ],
)
def test_other_names_are_refused(program: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(program)
    with pytest.raises(
        ValueError, match=r"cannot be read \(it asks for .*, which may be harmful\)"
    ):
        convert_smpl(tmp_path / "model.pkl", tmp_path / "smpl.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_template": None}, "has no numbers as v_template"),
        (
            {"v_template": np.zeros((VERTICES, 2))},
            r"do not go together \(J_regressor \(24, 40\), v_",
        ),
        ({"v_template": np.full((VERTICES, 3), np.nan)}, "joints that are nowhere on a body"),
        ({"shapedirs": np.full((VERTICES, 3, 10), 1e300)}, "joints that are nowhere on a body"),
        ({"shapedirs": np.zeros((VERTICES, 3, 9))}, r"do not go together .*shapedirs \(40, 3, 9\)"),
        ({"shapedirs": "none"}, "has no numbers as shapedirs"),
        (
            {"shapedirs": np.array([{}])},
            "cannot be read .*an array holds objects, not numbers",
        ),
        (
            {"J_regressor": np.zeros((55, VERTICES))},
            r"size \(55, 40\); give SMPL with 24 joints \(not",
        ),
        ({"J_regressor": np.zeros((24, 41))}, "sizes that do not go together"),
        ({"kintree_table": np.zeros((2, 24))}, "another kintree_table than SMPL's"),
        ({"kintree_table": np.zeros((1, 24))}, "another kintree_table than SMPL's"),
    ],
)
def test_other_models(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = tmp_path / "model.pkl"
    source.write_bytes(pickle.dumps(model() | change))
    with pytest.raises(ValueError, match=f"model.pkl .*{message}"):
        convert_smpl(source, tmp_path / "smpl.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"indptr": np.array([0, 2, 1], np.int32)},
        {"indices": np.array([0, 24], np.int32)},
        {"indices": np.array([0, -1], np.int32)},
        {"indices": np.array([0], np.int32)},
        {"_shape": (24, 10**9)},
        {"_shape": (90_000, 90_000)},
        {"_shape": (24, 2, 2)},
    ],
)
def test_damaged_sparse_matrices(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = fake_class(monkeypatch, "scipy.sparse.csc", "csc_matrix")
    sound = {
        "_shape": (24, 2),
        "data": np.ones(2),
        "indices": np.array([0, 1], np.int32),
        "indptr": np.array([0, 1, 2], np.int32),
    }
    source = tmp_path / "model.pkl"
    source.write_bytes(pickle.dumps(model() | {"J_regressor": holding(kind, **sound | change)}))
    with pytest.raises(ValueError, match=r"model.pkl cannot be read \(a sparse matrix "):
        convert_smpl(source, tmp_path / "smpl.safetensors")


def test_damaged_files(tmp_path: Path) -> None:
    whole = pickle.dumps(model())
    np.savez(tmp_path / "whole.npz", **model())  # type: ignore[arg-type]
    np.savez(tmp_path / "objects.npz", **model() | {"shapedirs": np.array([{}])})  # type: ignore[arg-type]
    np.savez(tmp_path / "less.npz", v_template=np.zeros((4, 3)))
    archive = (tmp_path / "whole.npz").read_bytes()
    for name, content, message in (
        ("a.pkl", whole[:-300], "a.pkl cannot be read"),
        ("b.pkl", b"", "b.pkl cannot be read"),
        ("c.pkl", b"no pickle", "c.pkl cannot be read"),
        ("d.pkl", pickle.dumps([1]), r"d.pkl cannot be read \(it holds no dictionary\)"),
        ("e.pkl", pickle.dumps({"f": 1}), "e.pkl has no J_regressor, v_template, shapedirs, kin"),
        ("f.npz", archive[:-200], "f.npz cannot be read"),
        ("g.npz", archive[:200] + b"?" * 40 + archive[240:], "g.npz cannot be read"),
        ("objects.npz", None, r"objects.npz cannot be read \(Object arrays cannot be loaded"),
        ("less.npz", None, "less.npz has no J_regressor, shapedirs, kintree_table"),
        ("h.txt", b"", "h.txt must be .pkl or .npz, as downloaded"),
        ("i.pkl", b"\x80\x02cnumpy\ndtype\n}b.", "i.pkl cannot be read"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            convert_smpl(tmp_path / name, tmp_path / "smpl.safetensors")
    with pytest.raises(ValueError, match=r"smpl.npz must end in .safetensors"):
        convert_smpl(tmp_path / "whole.npz", tmp_path / "smpl.npz")


@pytest.mark.parametrize("path", [None, Path("absent.safetensors")])
def test_an_absent_file_says_where_to_get_it(path: Path | None, tmp_path: Path) -> None:
    expected = "no SMPL file given. " if path is None else "no file .*absent.safetensors. "
    expected += (
        "SMPL is licensed .* https://smpl.is.tue.mpg.de, accept the licence .*"
        r"basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl .* convert_smpl\(FILE"
    )
    with pytest.raises(ValueError, match=expected.replace(" convert", " .*convert")):
        load_body(None if path is None else tmp_path / path)
    if path is not None:
        with pytest.raises(ValueError, match=expected.replace(" convert", " .*convert")):
            convert_smpl(tmp_path / path, tmp_path / "smpl.safetensors")


def test_what_load_body_refuses(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model.pkl is not converted: convert_smpl\("):
        load_body(tmp_path / "model.pkl")
    (tmp_path / "damaged.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"damaged.safetensors is damaged \("):
        load_body(tmp_path / "damaged.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"other.safetensors is no SMPL, not spikevideoformer.smpl.1"
    ):
        load_body(tmp_path / "other.safetensors")
    tensors = {"joint_template": torch.zeros(23, 3), "joint_shape_directions": torch.zeros(3)}
    save_file(tensors, tmp_path / "sizes.safetensors", {"format": "spikevideoformer.smpl.1"})
    with pytest.raises(ValueError, match=r"sizes.safetensors is damaged \(sizes of its tensors\)"):
        load_body(tmp_path / "sizes.safetensors")
    del tensors["joint_shape_directions"]
    save_file(tensors, tmp_path / "less.safetensors", {"format": "spikevideoformer.smpl.1"})
    with pytest.raises(ValueError, match=r"less.safetensors is damaged \(.*joint_shape_directions"):
        load_body(tmp_path / "less.safetensors")
