import torch
import torch.nn.functional as F

from yolonas_lab import losses


def with_pytorch(student, teacher, t, weight=2, detach=torch.Tensor.detach, factor=2):
    q = torch.sigmoid(detach(teacher) / t)
    bce = F.binary_cross_entropy_with_logits(student / t, q, reduction="none")
    return (bce * (q - torch.sigmoid(student / t)) ** weight).sum(-1) * t**factor


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
    ("kd_class_loss", lambda s, q, t: with_pytorch(s, q, t, weight=0), "weight (q - p)² is missing"),
    ("kd_class_loss", lambda s, q, t: with_pytorch(s, q, t, factor=0), "T² is missing"),
    ("kd_class_loss", lambda s, q, t: with_pytorch(s, q, t, factor=1), "not T"),
    ("kd_class_loss", lambda s, q, t: with_pytorch(s, q, t, detach=lambda x: x), "should not learn"),
    ("kd_class_loss", lambda s, q, t: with_pytorch(s * t, q, t), "student's logits"),
    ("kd_class_loss", lambda s, q, t: losses.kd_class_loss(s.detach(), q, t), "detach the teacher alone"),
    ("kd_class_loss", lambda s, q, t: losses.kd_class_loss(s, q, t).sum(), "expected"),
    ("kd_dfl_loss", lambda s, q, t: with_kl_div(s, q * t, t), "teacher's logits"),
    ("kd_dfl_loss", lambda s, q, t: 4 * with_kl_div(s, q, t), "not their sum"),
    ("kd_dfl_loss", lambda s, q, t: with_kl_div(s, q, t).mean(), "expected"),
]
