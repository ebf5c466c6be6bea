"""The first and the last mile inside the graph: uint8 images as cameras give them, and NMS.

Notebook 12 adds both. They are written in ONNX's own text form and joined to the exported network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yolonas_lab.postprocess import check_thresholds

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

HEADER = '<ir_version: {ir_version}, opset_import: ["" : {opset}]>'

# Cast comes first: TensorRT moves uint8 data nowhere else.
PREPROCESSING = """
preprocessing (uint8[{b}, {h}, {w}, 3] images) => (float[{b}, 3, {h}, {w}] network_images)
<float full = {{255}}>
{{
  ["preprocessing/Cast"] pixels = Cast<to = 1>(images)
  ["preprocessing/Div"] scaled = Div(pixels, full)
  ["preprocessing/Transpose"] network_images = Transpose<perm = [0, 3, 1, 2]>(scaled)
}}
"""

# What `postprocess` does: the best top_k (box, class) pairs of an image, NMS class by class, the best of what is left.
NMS = """
nms (float[{b}, {a}, 4] all_boxes, float[{b}, {a}, {k}] all_scores, float[1] conf, float[1] iou)
  => (int64[{b}] num_detections, float[{b}, n, 4] boxes, float[{b}, n] scores, int64[{b}, n] labels)
<float[1] conf = {{{conf}}}, float[1] iou = {{{iou}}}, int64[1] top_k = {{{top_k}}},
 int64[1] max_detections = {{{max_detections}}}, int64 num_classes = {{{k}}}, float zero = {{0}}, float[1] one = {{1}},
 int64[2] per_image = {{0, -1}}, int64[1] first = {{1}}, int64[1] behind = {{2}}, int64[1] last = {{-1}},
 int64[1] start = {{0}}>
{{
  ["nms/Flatten"] pairs = Reshape(all_scores, per_image)
  ["nms/PairsShape"] pairs_shape = Shape(pairs)
  ["nms/Pairs"] num_pairs = Slice(pairs_shape, first, behind)
  ["nms/CandidateCount"] num_candidates = Min(top_k, num_pairs)
  ["nms/Candidates"] best, best_pairs = TopK(pairs, num_candidates)
  ["nms/Nothing"] nothing = Mul(pairs, zero)
  ["nms/Scatter"] candidates = ScatterElements<axis = 1>(nothing, best_pairs, best)
  ["nms/ScoresShape"] scores_shape = Shape(all_scores)
  ["nms/Unflatten"] by_box = Reshape(candidates, scores_shape)
  ["nms/ByClass"] by_class = Transpose<perm = [0, 2, 1]>(by_box)
  ["nms/NonMaxSuppression"] chosen = NonMaxSuppression(all_boxes, by_class, max_detections, iou, conf)
  ["nms/ChosenShape"] chosen_shape = Shape(chosen)
  ["nms/ChosenCount"] num_chosen = Slice(chosen_shape, start, first)
  ["nms/Ones"] ones = Expand(one, num_chosen)
  ["nms/NobodyYet"] nobody = Mul(by_class, zero)
  ["nms/Mask"] mask = ScatterND(nobody, chosen, ones)
  ["nms/Masked"] masked = Mul(by_class, mask)
  ["nms/ByBox"] kept_by_box = Transpose<perm = [0, 2, 1]>(masked)
  ["nms/FlattenKept"] kept = Reshape(kept_by_box, per_image)
  ["nms/DetectionCount"] num_slots = Min(max_detections, num_pairs)
  ["nms/Detections"] scores, pair = TopK(kept, num_slots)
  ["nms/Labels"] found_labels = Mod(pair, num_classes)
  ["nms/BoxIndex"] box_index = Div(pair, num_classes)
  ["nms/BoxRow"] box_row = Unsqueeze(box_index, last)
  ["nms/Boxes"] found_boxes = GatherND<batch_dims = 1>(all_boxes, box_row)
  ["nms/Used"] used = Greater(scores, zero)
  ["nms/UsedAsInt"] used_int = Cast<to = 7>(used)
  ["nms/UsedAsFloat"] used_float = Cast<to = 1>(used)
  ["nms/UsedRow"] used_row = Unsqueeze(used_float, last)
  ["nms/BoxesOrZero"] boxes = Mul(found_boxes, used_row)
  ["nms/LabelsOrZero"] labels = Mul(found_labels, used_int)
  ["nms/Count"] num_detections = ReduceSum<keepdims = 0>(used_int, last)
}}
"""


def prepend_preprocessing(proto: ModelProto) -> ModelProto:
    """The same network for images (b, h, w, 3) uint8 RGB: cast to float, divided by 255, channels first."""
    b, _, h, w = _dims(proto.graph.input[0])
    _rename(proto, "images", "network_images")
    return _joined(_parsed(PREPROCESSING.format(b=b, h=h, w=w), proto), proto, "network_images")


def append_nms(
    proto: ModelProto, conf: float = 0.25, iou: float = 0.7, top_k: int = 1024, max_detections: int = 300
) -> ModelProto:
    """The same network with `postprocess` behind it, in the standard operators TopK and NonMaxSuppression.

    Its outputs have n = max_detections slots per image, best first, zeros after the last: num_detections (b,) int64,
    boxes (b, n, 4) xyxy px, scores (b, n), labels (b, n) int64. "conf" and "iou" are inputs (1,) that may be left
    out; the values given here are then used. Raises ValueError for thresholds outside [0, 1] and counts below 1.
    """
    check_thresholds(conf, iou)
    if top_k < 1 or max_detections < 1:
        raise ValueError(f"top_k and max_detections must be at least 1, but are {top_k} and {max_detections}.")
    b, a, k = _dims(proto.graph.output[1])
    _rename(proto, "boxes", "all_boxes")
    _rename(proto, "scores", "all_scores")
    settings = {"conf": float(conf), "iou": float(iou), "top_k": top_k, "max_detections": max_detections}
    tail = _parsed(NMS.format(b=b, a=a, k=k, **settings), proto)
    return _joined(proto, tail, "all_boxes", "all_scores")


def _parsed(text: str, like: ModelProto) -> ModelProto:
    import onnx

    header = HEADER.format(ir_version=like.ir_version, opset=like.opset_import[0].version)
    return onnx.parser.parse_model(header + text)


def _joined(first: ModelProto, second: ModelProto, *tensors: str) -> ModelProto:
    """One graph: the outputs of the first with these names are the inputs of the second with the same names."""
    joined = type(first)()
    joined.CopyFrom(first)
    graph = joined.graph
    graph.node.extend(second.graph.node)
    graph.initializer.extend(second.graph.initializer)
    graph.input.extend(value for value in second.graph.input if value.name not in tensors)
    del graph.output[:]
    graph.output.extend(second.graph.output)
    return joined


def _rename(proto: ModelProto, old: str, new: str) -> None:
    """Give a graph input or output another name, in place."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = new if value.name == old else value.name
    for node in proto.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [new if tensor == old else tensor for tensor in tensors]


def _dims(value: ValueInfoProto) -> list[int | str]:
    """The sizes of a graph input or output; names where they are open."""
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
