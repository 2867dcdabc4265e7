"""The fusion node: any set of sensors in, ``omnibind/prediction`` out."""

from __future__ import annotations

import omnibind_ros.node.threads  # noqa: F401 - first, before threads are started

# isort: split
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from omnibind_core import modalities
from omnibind_core.errors import ConfigError
from omnibind_core.model import saved_modalities
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.trigger import TickSource
from omnibind_core.runtime.types import EngineSettings, Prediction, SensorReport, SensorState
from omnibind_core.runtime.vocabulary import Between, VocabularyChanges, check_labels
from omnibind_ros import msg
from omnibind_ros.graph.discovery import Adopted, Discovery, name_of
from omnibind_ros.graph.judging import Judgement, Offer
from omnibind_ros.graph.probe import Prober
from omnibind_ros.graph.topics import LATCHED, node_name
from omnibind_ros.messages import fill, prediction_fields, sensor_status_fields
from omnibind_ros.node.lifecycle import PerceptionNode
from omnibind_ros.node.outputs import DebugImage, VisionOutputs, vision_messages
from omnibind_ros.node.parameters import FUSION_NODE
from omnibind_ros.node.process import end, interruptible, run
from omnibind_ros.node.sync import ApproximateSync
from omnibind_ros.node.tick_loop import Tick

if TYPE_CHECKING:
    from omnibind_core.model import AnsweringModel
    from omnibind_core.model.answering import Labels
    from omnibind_ros.node.objects.outputs import ObjectOutputs
    from omnibind_ros.node.objects.things import Things

_GIVE_WAY = 0.25  # s that a slice of a vocabulary waits at most for the end of a tick
_END_PATIENCE = 1.0  # s that a slice of a vocabulary may go on when it is of no use any more


class Perceived(NamedTuple):
    """What a tick gave: of the scene, and what things can be made of."""

    prediction: Prediction | None
    tokens: Sequence[Token]


class FusionNode(PerceptionNode):
    """Fuses every sensor that is alive and publishes what is perceived.

    Topics, services and parameters: docs/topics.md, docs/parameters.md.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__("fusion_node", FUSION_NODE, **node_options)
        self._predictions = 0
        self._alive: tuple[str, ...] = ()
        self._discovery: Discovery | None = None
        self._prober = Prober(self)
        self._switches: set[str] = set()
        self._reported: Any = None
        self._own_labels: Labels | None = None
        self._own_threshold = 0.0
        self._vocabulary: VocabularyChanges | None = None
        self._answers = False  # whether the model has the labels that were asked for at the start, or later ones
        self._publisher = self.create_lifecycle_publisher(msg.Prediction, "omnibind/prediction", 10)
        self._status = self.create_publisher(msg.FusionStatus, "~/status", LATCHED)
        self._debug = DebugImage(self)
        kinds = vision_messages()
        self._vision = VisionOutputs(self, kinds) if kinds is not None else None
        self._things: Things | None = None
        self._objects: ObjectOutputs | None = None
        for name in self.parameters.sensor_names:
            self._offer_switch(name)

    def settings(self) -> EngineSettings:
        """Settings of the engine, from the parameters."""
        return self.parameters.settings

    @property
    def wanted(self) -> set[str]:
        """Modalities whose encoders are needed: those of the sensors, and of all that may be adopted."""
        if not self.parameters["discover"]:
            return super().wanted
        return super().wanted | set(modalities.sensors()) & set(saved_modalities(self.parameters["model"]))

    @property
    def has_touch(self) -> bool:
        """Whether there may be a tactile sensor."""
        return super().has_touch or bool(self.parameters["discover"])

    def make_trigger(self, engine: PerceptionEngine) -> TickSource:
        """What says when to tick, by the parameters ``sync`` and ``trigger``."""
        if self.parameters["sync"] == "approximate":
            return ApproximateSync(engine, self.parameters["slop"])
        return super().make_trigger(engine)

    def on_model(self) -> None:
        """Gives the model the threshold of the parameters, and has their labels embedded, without waiting for that."""
        assert self.model is not None
        self._own_labels, self._own_threshold = self.model.labels, self.model.threshold
        self._vocabulary = VocabularyChanges(lambda: self._loop.idle(_GIVE_WAY))
        labels = self.parameters["labels"]
        self._answers = not labels
        if labels:
            self.model.warm_up({"text"})  # weights that are not there should be told now
        self.apply({"threshold": self.parameters["threshold"], **({"labels": labels} if labels else {})})

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the ticks, with all counters at zero."""
        self._predictions = 0
        self._alive = ()
        if self._things is not None and self.model is not None:
            self._things.start(self.model)
        result = super().on_activate(state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._rest()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the ticks; messages are dropped from now on."""
        result = super().on_deactivate(state)
        self._rest()
        return result

    def _rest(self) -> None:
        if self._things is not None:
            self._things.stop()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and loads the model."""
        self._discovery = Discovery(self.parameters.discovery) if self.parameters["discover"] else None
        if self.parameters.objects is not None:
            from omnibind_ros.node.objects.outputs import ObjectOutputs
            from omnibind_ros.node.objects.things import Things

            self._objects = self._objects or ObjectOutputs(self)  # it stays, as publishers do
            self._things = Things(self, self._pool, self.parameters, self._cameras)
        return super().on_configure(state)

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Applies changed labels, threshold and rate.

        Raises:
            ConfigError: A label is blank or given twice.
        """
        labels = changes.get("labels")
        check_labels(labels or ())
        super().apply(changes)
        if self.model is None:
            return
        if labels is not None:
            self._change_labels(self.model, labels)
        if "threshold" in changes:
            threshold = changes["threshold"]
            self.model.threshold = self._own_threshold if threshold < 0 else threshold

    def _change_labels(self, model: AnsweringModel, labels: Sequence[str]) -> None:
        """Has labels embedded, or the model's own taken back, in the order of the changes."""
        own = self._own_labels
        assert self._vocabulary is not None and own is not None

        def change(between: Between) -> None:
            if labels:
                model.set_labels(labels, between)
            else:
                model.labels = own
            self._answers = True

        self._vocabulary.request(len(labels or own.names), change)

    def stop(self) -> None:
        """Ends the worker, a look at topics and what is being embedded; the rest is left to the end of the process."""
        self._prober.close()
        if self._vocabulary is not None:
            self._vocabulary.close(_END_PATIENCE)
        super().stop()

    def _free(self) -> None:
        for name in list(self._discovery.adopted) if self._discovery is not None else ():
            self._let_go(name, "the node is cleaned up")
        self._discovery = None
        if self._things is not None:
            self._things.close()
            self._things = None
        if self._vocabulary is not None:
            self._vocabulary.close(_END_PATIENCE)
        self._vocabulary = self._own_labels = None
        super()._free()

    # Adopted topics -------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        if self._discovery is not None and self.model is not None:
            self._discover(self._discovery, self.model.modalities)
        super()._poll()
        if self._things is not None:
            self._things.poll(self.sensors, self._links)

    def _discover(self, discovery: Discovery, known: Sequence[str]) -> None:
        offers = {}
        for topic, types in self.get_topic_names_and_types():
            infos = self.get_publishers_info_by_topic(topic)
            if any(info.node_name != self.get_name() for info in infos):
                publishers = tuple(sorted({node_name(info) for info in infos}))
                offers[topic] = Offer(topic, tuple(types), publishers, self._prober.seen(topic, types[0]))
        for name in discovery.lost(offers, time.monotonic()):
            self._let_go(name, "no publisher")
        self._prober.forget(offers)
        mine = {item.topic for item in discovery.adopted.values()}
        used = {self.link(name).topic for name in self.sensors} - mine
        chosen = {item.offer.topic: item for item in discovery.choose(offers.values(), known, used)}
        self._prober.look(discovery.pending)
        for offer in discovery.pending:
            if offer.topic in self._prober.silent:
                told = self._prober.silent[offer.topic]
                discovery.excluded[offer.topic] = f"nothing came while it was looked at: {told}"
        for name, item in list(discovery.adopted.items()):
            judgement = chosen.get(item.topic)
            if judgement is not None and judgement.modality == item.judgement.modality:
                item.judgement = chosen.pop(item.topic)
            else:
                self._let_go(name, {**discovery.excluded, **discovery.refused}.get(item.topic, "it has changed"))
        for judgement in chosen.values():
            self._adopt(discovery, judgement)
        if not self._prober.busy and (news := discovery.news()):
            self.get_logger().info(news)

    def _adopt(self, discovery: Discovery, judgement: Judgement) -> None:
        topic, ros_type = judgement.offer.topic, judgement.offer.types[0]
        name = name_of(topic, self.get_namespace(), self.parameters.taken)
        try:
            sensor = self.parameters.add(name, type=judgement.modality, topic=topic, message_type=ros_type)
        except ConfigError as error:
            discovery.refused[topic] = str(error)
            return
        discovery.adopted[name] = Adopted(judgement, time.monotonic())
        self.sensors[name] = sensor
        self.connect(sensor)
        self._offer_switch(name)
        if self.engine is not None:
            self.engine.add(sensor.config)
        self.get_logger().info(f"[{name}] adopted {topic}: {judgement.modality} {judgement.reason}")

    def _let_go(self, name: str, why: str) -> None:
        assert self._discovery is not None
        adopted = self._discovery.adopted.pop(name)
        if self.engine is not None:
            self.engine.remove(name)
        self.disconnect(name)
        del self.sensors[name]
        self.parameters.remove(name)
        self.get_logger().info(f"[{name}] let {adopted.topic} go: {why}")

    def further_diagnostics(self) -> list[tuple[str, tuple[bytes, str, dict[str, Any]]]]:
        """What was adopted and what was not, and what becomes of things."""
        entries = [("discovery", self._discovery_entry(self._discovery))] if self._discovery is not None else []
        if self._things is not None and self._objects is not None:
            entries.append(("objects", self._things.entry(self._objects.missing)))
        return entries

    @staticmethod
    def _discovery_entry(discovery: Discovery) -> tuple[bytes, str, dict[str, Any]]:
        adopted, refused, excluded = discovery.adopted, discovery.refused, discovery.excluded
        level = DiagnosticStatus.WARN if refused else DiagnosticStatus.OK
        values = {name: f"{item.topic}: {item.judgement.reason}" for name, item in adopted.items()}
        message = f"{len(adopted)} topics adopted, {len(refused)} not; {len(excluded)} are no sensor's"
        return level, message, {**values, **excluded, **refused}

    def further_costs(self) -> Mapping[str, float]:
        """What things take."""
        return {} if self._things is None else {"objects": self._things.cost}

    def _inference_entry(self) -> tuple[bytes, str, dict[str, Any]]:
        level, message, values = super()._inference_entry()
        if words := self._vocabulary_words():
            message = f"{message}; {words}"
        if self._vocabulary is not None and self._vocabulary.failure:
            level = max(level, DiagnosticStatus.WARN)
        return level, message, {**values, "labels": len(self._label_names)}

    def _vocabulary_words(self) -> str:
        """What is being done about the labels, or failed; empty if neither."""
        if self._vocabulary is None:
            return ""
        failure = self._vocabulary.failure
        kept = "those before stay" if self._answers else "there are none"
        return self._vocabulary.busy or (f"labels could not be changed, {kept}: {failure}" if failure else "")

    @property
    def _label_names(self) -> tuple[str, ...]:
        """The labels that answer; none before those that were asked for at the start are there."""
        return self.model.labels.names if self.model is not None and self._answers else ()

    def _offer_switch(self, sensor: str) -> None:
        if sensor not in self._switches:  # it stays when a topic is let go: nothing is destroyed while we spin
            self._switches.add(sensor)
            self.create_service(SetBool, f"~/{sensor}/set_enabled", partial(self._on_set_enabled, sensor))

    def _on_set_enabled(self, sensor: str, request: Any, response: Any) -> Any:
        if f"{sensor}.enabled" not in self.parameters:
            response.success, response.message = False, f"there is no sensor '{sensor}' at present"
            return response
        parameter = Parameter(f"{sensor}.enabled", Parameter.Type.BOOL, request.data)
        result = self.set_parameters([parameter])[0]
        response.success, response.message = result.successful, result.reason
        return response

    # Predictions ----------------------------------------------------------------------------------------------------

    def compute(self, selection: Selection) -> Perceived:
        """The prediction of a tick, if enough sensors offer something usable and labels are there, and its tokens."""
        assert self.engine is not None
        return Perceived(*self.engine.perceive(selection)) if self._answers else Perceived(None, ())

    def publish(self, tick: Tick, perceived: Perceived) -> None:
        """Publishes a prediction; then computes and publishes things, which it does not wait for."""
        prediction = perceived.prediction
        if prediction is None:
            self._alive = ()
        else:
            latency = time.monotonic() - tick.started
            message = self._message(prediction, latency)
            self._publisher.publish(message)
            self._predictions += 1
            self.inference.times.add({**prediction.stages, "latency": latency})
            self._alive = tuple(share.name for share in prediction.sensors)
            if self._vision is not None:
                self._vision.publish(message.header, prediction)
        if self._things is not None and self._answers:
            self._publish_things(self._things, tick.selection, perceived.tokens)
        if prediction is not None and self.engine is not None:
            self._debug.publish(message.header, prediction, self.engine, self._things)

    def _publish_things(self, things: Things, selection: Selection, tokens: Sequence[Token]) -> None:
        if self.engine is None or self._objects is None:
            return
        reports = self.engine.reports(selection.now_ns)
        begin = time.monotonic()
        told = things.perceive(selection, tokens, reports, self.sensors, self._links)
        if told is None:
            return
        header, latency = self.header(selection.now_ns), time.monotonic() - begin
        header.frame_id = things.rig.fixed
        self._objects.publish(header, told, lambda said: self._message(replace(said, header=header), latency))

    def _message(self, prediction: Prediction, latency: float) -> msg.Prediction:
        embedding, similarities = self.parameters["publish_embedding"], self.parameters["publish_similarities"]
        fields = prediction_fields(prediction, latency, msg.SensorShare, embedding, similarities)
        return fill(msg.Prediction(), {**fields, "header": prediction.header})

    # Status ---------------------------------------------------------------------------------------------------------

    def on_selection(self, selection: Selection) -> None:
        """Publishes the status at once if a sensor's state, the sensors alive or the labels have changed."""
        assert self.engine is not None
        if self._things is not None:
            self._things.on_selection(selection)
        reports = self.engine.reports(selection.now_ns)
        if self._key(reports) != self._reported:
            self.on_report(reports)

    def on_report(self, reports: Sequence[SensorReport]) -> None:
        """Publishes the status."""
        assert self.model is not None
        self._reported = self._key(reports)
        times = self.inference.times
        if self._vision is not None and self._answers:
            self._vision.publish_labels(self.header(), self._label_names, self.model.threshold)
        self._status.publish(
            msg.FusionStatus(
                header=self.header(),
                model=self.model.identity,
                labels=list(self._label_names),
                threshold=self.model.threshold,
                sensors=[self._sensor_status(report) for report in reports],
                alive=list(self._alive),
                message=self._sentence(reports),
                ticks=self._loop.ticks,
                predictions=self._predictions,
                overruns=self._loop.overruns,
                latency_mean=times.mean("latency"),
                latency_max=times.maximum("latency"),
            )
        )

    def _key(self, reports: Sequence[SensorReport]) -> Any:
        told = self._vocabulary_words().partition(",")[0]  # not at every per cent of it
        load = self._loop.load
        return [report.state for report in reports], self._alive, self._label_names, told, load.share, load.spared

    def _sentence(self, reports: Sequence[SensorReport]) -> str:
        parts = [self._state_sentence(reports)] if self._answers or self.engine is None else ["no prediction yet"]
        load = self._loop.load.words if self.engine is not None else ""
        return "; ".join(part for part in (*parts, self._vocabulary_words(), load) if part)

    def _state_sentence(self, reports: Sequence[SensorReport]) -> str:
        if self.engine is None:
            return "inactive"
        if self._alive:
            return f"perceiving by {', '.join(self._alive)}"
        active = [report.name for report in reports if report.state == SensorState.ACTIVE]
        wanted = self.parameters["min_sensors"]
        if 0 < len(active) < wanted:
            return f"only {', '.join(active)} alive, {wanted} sensors wanted (min_sensors)"
        if active:
            return f"{', '.join(active)} alive, no prediction yet"
        return "no sensor alive: " + "; ".join(f"{r.name} {r.state.name.lower()}: {r.reason}" for r in reports)

    def _sensor_status(self, report: SensorReport) -> msg.SensorStatus:
        link = self.link(report.name)
        return msg.SensorStatus(**sensor_status_fields(report, link.topic, link.ros_type))


def main() -> None:
    """Runs the node."""
    with interruptible():
        end(run(FusionNode))


if __name__ == "__main__":
    main()
