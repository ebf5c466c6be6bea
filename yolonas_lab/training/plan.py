"""When things happen in a training: which learning rate at which step, when to evaluate and when to save."""

from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.schedule import warmup_cosine


class Plan:
    """The timetable of a training whose loader has `batches` batches per epoch and process."""

    def __init__(self, config: TrainConfig, batches: int):
        self.config = config
        self.steps_per_epoch = batches / config.accumulate
        if config.steps is not None:
            self.steps = config.steps
        else:
            assert config.epochs is not None
            self.steps = max(1, round(config.epochs * self.steps_per_epoch))
        self.warmup_steps = round(config.warmup_epochs * self.steps_per_epoch) or config.warmup_steps

    def learning_rate(self, step: int) -> float:
        """The learning rate of the update from `step` to `step` + 1."""
        c = self.config
        return warmup_cosine(step, self.steps, c.lr, self.warmup_steps, c.warmup_start_lr, c.final_lr_ratio)

    def evaluates_after(self, step: int) -> bool:
        """True at the end, and after each step that completes another evaluate_every epochs."""
        if self.config.evaluate_every is None or step == self.steps:
            return step == self.steps
        every = self.config.evaluate_every * self.steps_per_epoch
        return int(step / every) > int((step - 1) / every)

    def saves_after(self, step: int) -> bool:
        """True after each evaluation and every checkpoint_every steps."""
        return step % self.config.checkpoint_every == 0 or self.evaluates_after(step)
