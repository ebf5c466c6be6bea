import torch
import torch.nn.functional as F

from yolonas_lab import losses


def with_pytorch(student, teacher, t):
    q = torch.sigmoid(teacher.detach() / t)
    bce = F.binary_cross_entropy_with_logits(student / t, q, reduction="none")
    return (bce * (q - torch.sigmoid(student / t)) ** 2).sum(-1) * t**2


def with_kl_div(student, teacher, t):
    with torch.no_grad():
        q = (teacher / t).softmax(-1)
    return F.kl_div((student / t).log_softmax(-1), q, reduction="none").sum(-1).mean(-1) * t**2


RIGHT = [
    ("kd_class_loss", with_pytorch),
    ("kd_class_loss", losses.kd_class_loss),
    ("kd_dfl_loss", with_kl_div),
    ("kd_dfl_loss", losses.kd_dfl_loss),
]
WRONG = [
    ("kd_class_loss", (with_pytorch, ")) ** 2) -> )) ** 0)"), "weight (q - p)² is missing"),
    ("kd_class_loss", (with_pytorch, "* t**2 ->"), "T² is missing"),
    ("kd_class_loss", (with_pytorch, "* t**2 -> * t"), "not T"),
    ("kd_class_loss", (with_pytorch, ".detach() ->"), "should not learn"),
    ("kd_class_loss", (with_pytorch, "student / t -> student"), "student's logits"),
    ("kd_class_loss", lambda s, q, t: losses.kd_class_loss(s.detach(), q, t), "detach the teacher alone"),
    ("kd_class_loss", lambda s, q, t: losses.kd_class_loss(s, q, t).sum(), "expected"),
    ("kd_dfl_loss", (with_kl_div, "teacher / t -> teacher"), "teacher's logits"),
    ("kd_dfl_loss", (with_kl_div, ".sum(-1).mean(-1) -> .sum((-2, -1))"), "not their sum"),
    ("kd_dfl_loss", lambda s, q, t: with_kl_div(s, q, t).mean(), "expected"),
]
