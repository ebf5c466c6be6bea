"""Changes to an exported graph: half precision inside, Q/DQ as CPUs like it, uint8 images before and NMS behind.

Notebook 12 compares what they do. TensorRT takes each layer's type from the graph, so a float16 engine, or an INT8 one
whose remaining layers are fast, starts here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.deployment.onnx_graph import QUANTIZERS, Graph, axis_of, replace_nodes, sources

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto


SMALLEST = float(np.finfo(np.float16).tiny)  # smaller numbers lose digits
LARGEST = float(np.finfo(np.float16).max)
DECODING = "decode/"


def to_float16(proto: ModelProto) -> None:
    """Convert an exported detector in place: images and everything from the decoding on stay float32.

    Boxes are decoded in float32 because from 512 px on float16 counts in half pixels, and from 1024 on in whole ones.
    int8 weights stay what they are; those of a channel whose scale is too small for float16 are rounded anew to the
    smallest scale it has. Raises ValueError naming a weight too large for float16.
    """
    from onnx import helper

    graph = Graph(proto.graph)
    half = _half_nodes(graph)
    decoding = [node for node in graph.nodes if node.name.startswith(DECODING)]
    casts = {"images": helper.make_node("Cast", ["images"], ["images/float16"], "to_float16/Cast", to=10)}  # FLOAT16
    for tensor in (tensor for node in decoding for tensor in node.input):
        if (source := graph.producer.get(tensor)) is not None and source.name in half:
            casts[tensor] = helper.make_node("Cast", [tensor], [f"{tensor}/float32"], f"{tensor}/to_float32", to=1)
    _convert_constants(proto, graph, half)
    for node in graph.nodes:
        if node.name in half:
            node.input[:] = ["images/float16" if tensor == "images" else tensor for tensor in node.input]
    for node in decoding:
        node.input[:] = [casts[tensor].output[0] if tensor in casts else tensor for tensor in node.input]
    nodes = [casts["images"]]
    for node in proto.graph.node:  # each cast right behind the node that makes its tensor
        nodes += [node, *(casts[output] for output in node.output if output in casts)]
    replace_nodes(proto, nodes)


def _half_nodes(graph: Graph) -> set[str]:
    """Names of the nodes that compute with pixel values up to the decoding, and of those that prepare their weights."""
    half: set[str] = set()
    tensors = {"images"}
    for node in graph.nodes:
        if node.op_type != "Shape" and not node.name.startswith(DECODING) and tensors.intersection(node.input):
            half.add(node.name)
            tensors.update(node.output)
    for node in reversed(graph.nodes):  # from a layer back through what dequantizes, or even quantizes, its weight
        if node.op_type in QUANTIZERS and any(user.name in half for user in graph.users(node)):
            half.add(node.name)
    return half


def _convert_constants(proto: ModelProto, graph: Graph, half: set[str]) -> None:
    """Rewrite the float32 initializers that half nodes use; one that others use too is kept beside its copy."""
    from onnx import numpy_helper

    initializers = {initializer.name: initializer for initializer in proto.graph.initializer}
    for name in list(initializers):
        array, users = graph.constants[name], graph.consumers[name]
        inside = [(node, index) for node, index in users if node.name in half]
        if array.dtype != np.float32 or not inside:
            continue
        if all(node.op_type in QUANTIZERS and index == 1 for node, index in inside):  # a scale
            array = _without_small_scales(array, [node for node, _ in inside], graph, initializers)
        elif np.abs(array).max(initial=0) > LARGEST:
            raise ValueError(f"{name} holds values beyond {LARGEST:g}, too large for float16; export it as float32.")
        new_name = name if len(inside) == len(users) else f"{name}/float16"
        converted = numpy_helper.from_array(array.astype(np.float16), new_name)
        if new_name == name:
            initializers[name].CopyFrom(converted)
        else:
            proto.graph.initializer.append(converted)
        for node, index in inside:
            node.input[index] = new_name


def _without_small_scales(
    scale: np.ndarray, users: list[NodeProto], graph: Graph, initializers: dict[str, TensorProto]
) -> np.ndarray:
    """The scales, none below SMALLEST; the int8 weights whose scale was raised are divided by as much."""
    from onnx import numpy_helper

    factor = np.minimum(scale / np.float32(SMALLEST), 1)
    for node in users if (factor < 1).any() else ():
        weight = graph.constants.get(node.input[0])
        if weight is not None:
            shape = [-1 if axis == axis_of(node) else 1 for axis in range(weight.ndim)] if scale.ndim else []
            rounded = np.round(weight * factor.reshape(shape)).astype(weight.dtype)
            initializers[node.input[0]].CopyFrom(numpy_helper.from_array(rounded, node.input[0]))
    return np.maximum(scale, np.float32(SMALLEST))


def requantize_moved_values(proto: ModelProto) -> None:
    """Put Q/DQ behind every Concat and MaxPool of dequantized tensors, in place, on the grid that they have in common.

    TensorRT knows by itself that these keep the scale (R7); onnxruntime computes in integers only what stands between
    a DequantizeLinear and a QuantizeLinear, so this keeps the layers behind them in integers too. The values are on
    that grid already and do not change. A Concat of several grids is left alone.
    """
    from onnx import helper

    graph = Graph(proto.graph)
    moved = [node for node in graph.nodes if node.op_type in ("Concat", "MaxPool")]
    grids = {node.output[0]: _common_grid(graph, node) for node in moved}
    renamed: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        node.input[:] = [renamed.get(tensor, tensor) for tensor in node.input]
        nodes.append(node)
        if grid := grids.get(node.output[0]):
            tensors = [node.output[0], f"{node.name}/QuantizeLinear", f"{node.name}/DequantizeLinear"]
            for kind, before, after in zip(QUANTIZERS, tensors, tensors[1:]):
                nodes.append(helper.make_node(kind, [before, *grid], [after], name=after))
            renamed[tensors[0]] = tensors[-1]
    replace_nodes(proto, nodes)


def _common_grid(graph: Graph, node: NodeProto) -> tuple[str, ...] | None:
    """Names of scale and zero-point, where all inputs are dequantized with the same ones."""
    makers = sources(graph, node.output[0])
    grids = {tuple(m.input[1:]) if m is not None and m.op_type == "DequantizeLinear" else None for m in makers}
    return grids.pop() if len(grids) == 1 else None


# The first and the last mile inside the graph, in ONNX's own text form.

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
    out; the values given here are then used.
    """
    b, a, k = _dims(proto.graph.output[1])
    _rename(proto, "boxes", "all_boxes")
    _rename(proto, "scores", "all_scores")
    settings = {"conf": float(conf), "iou": float(iou), "top_k": top_k, "max_detections": max_detections}
    tail = _parsed(NMS.format(b=b, a=a, k=k, **settings), proto)
    return _joined(proto, tail, "all_boxes", "all_scores")


def _parsed(text: str, like: ModelProto) -> ModelProto:
    import onnx

    header = f'<ir_version: {like.ir_version}, opset_import: ["" : {like.opset_import[0].version}]>'
    return onnx.parser.parse_model(header + text)


def _joined(first: ModelProto, second: ModelProto, *tensors: str) -> ModelProto:
    """One graph: the outputs of the first with these names are the inputs of the second with the same names."""
    joined = type(first)()
    joined.CopyFrom(first)
    joined.graph.node.extend(second.graph.node)
    joined.graph.initializer.extend(second.graph.initializer)
    joined.graph.input.extend(value for value in second.graph.input if value.name not in tensors)
    joined.graph.ClearField("output")
    joined.graph.output.extend(second.graph.output)
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
