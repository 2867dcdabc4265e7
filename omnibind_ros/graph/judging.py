"""Whether a topic is a sensor's, of which modality, and how good the evidence is: by its type, its name, who publishes
it and what its first message says. No ROS is needed to decide that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from omnibind_core import modalities
from omnibind_ros import messages
from omnibind_ros.messages.pictures import ENCODINGS

TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd", "ffmpeg")
"""Last parts of the topics that image_transport makes beside one of pictures."""
_PICTURES = (messages.IMAGE, messages.COMPRESSED_IMAGE)
_CLOUDS = (messages.POINT_CLOUD, messages.LASER_SCAN)


class Look(NamedTuple):
    """What the first messages of a topic say.

    Attributes:
        encoding: Of pictures; ``"compressedDepth"`` for those; ``""`` if it is not said.
        frame: Their ``frame_id``.
        rate: Hz; NaN if fewer than two came.
    """

    encoding: str = ""
    frame: str = ""
    rate: float = math.nan


class Offer(NamedTuple):
    """A topic that has a publisher.

    Attributes:
        topic: Full name.
        types: Message types of its publishers.
        publishers: Their nodes' names.
        look: What its messages say; ``None``: nobody has looked yet.
    """

    topic: str
    types: tuple[str, ...]
    publishers: tuple[str, ...] = ()
    look: Look | None = Look()


@dataclass(frozen=True)
class Judgement:
    """What a topic is taken for.

    Attributes:
        offer: The topic.
        modality: ``""`` if it is no sensor's.
        score: How good it is, where not all can be taken; of one camera without any doubt 2.
        reason: Why it is one, or none.
        devices: Marks, one of which two topics share that show the same in another form.
    """

    offer: Offer
    modality: str
    score: float
    reason: str
    devices: tuple[tuple[str, ...], ...] = ()


# What they are, whose topics carry what no built-in modality reads.
_FOREIGN = {
    "geometry_msgs/msg/WrenchStamped": "a force-torque reading",
    "geometry_msgs/msg/Wrench": "a force-torque reading",
    "sensor_msgs/msg/Imu": "an inertial reading",
    "sensor_msgs/msg/Range": "a single distance",
    "sensor_msgs/msg/FluidPressure": "the pressure of air or water",
    "sensor_msgs/msg/Temperature": "a single temperature",
    "sensor_msgs/msg/MagneticField": "a magnetic field",
    "sensor_msgs/msg/RelativeHumidity": "a humidity",
    "sensor_msgs/msg/NavSatFix": "a position",
    "radar_msgs/msg/RadarScan": "a radar scan",
}
_OTHER_FORM = {
    "livox_ros_driver2/msg/CustomMsg": "set the driver's xfer_format to 0: it sends PointCloud2 then",
    "livox_ros_driver/msg/CustomMsg": "set the driver's xfer_format to 0: it sends PointCloud2 then",
    "stereo_msgs/msg/DisparityImage": "take the point cloud that stereo_image_proc makes of it",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": "video is not decoded: take the raw or the compressed picture",
    "theora_image_transport/msg/Packet": "video is not decoded: take the raw or the compressed picture",
    "sensor_msgs/msg/PointCloud": "convert it to PointCloud2",
}


def explain_type(ros_type: str) -> str:
    """What a message type that no modality reads is, and what to do about it; ``""`` if it is no sensor's we know."""
    if ros_type in _FOREIGN:
        return f"{_FOREIGN[ros_type]}: omnibind has no modality for it; write a plug-in (docs/own_modality.md)"
    return _OTHER_FORM.get(ros_type, "")


def camera_info_topic(topic: str) -> str:
    """Topic of the ``CameraInfo`` that drivers publish beside one of pictures."""
    stem, slash, _ = raw_topic(topic).rpartition("/")
    return f"{stem}{slash}camera_info"


def raw_topic(topic: str) -> str:
    """The topic of pictures whose compressed form another topic has; itself if it has none."""
    stem, _, ending = topic.rpartition("/")
    return stem if ending in TRANSPORTS else topic


def substitute(topic: str, exists: Callable[[str], bool]) -> str:
    """What to do about a topic that does not exist, because another form of it does; ``""`` if none does.

    Args:
        topic: The topic.
        exists: Whether somebody publishes on a topic.
    """
    raw = raw_topic(topic)
    forms = [form for form in (raw, *(f"{raw}/{ending}" for ending in TRANSPORTS)) if form != topic and exists(form)]
    if not forms:
        return ""
    decoded = next((form for form in forms if form.rpartition("/")[2] not in TRANSPORTS[2:]), "")
    if decoded:
        return f"but {decoded} exists: set the sensor's topic to it"
    return f"but {forms[0]} exists, which is not decoded here: let the driver send raw or compressed pictures"


def look_of(ros_type: str, message: Any, rate: float = math.nan) -> Look:
    """What a message says about its sensor.

    Args:
        ros_type: Its type.
        message: The message, of rclpy or rosbags.
        rate: Hz at which such ones came.
    """
    frame = getattr(getattr(message, "header", None), "frame_id", "")
    encoding = getattr(message, "encoding", "") if ros_type == messages.IMAGE else ""
    if ros_type == messages.COMPRESSED_IMAGE:
        kept, _, coding = message.format.partition(";")
        encoding = "compressedDepth" if "compressedDepth" in coding else kept if kept in ENCODINGS else ""
    return Look(encoding, frame, rate)


def wants_look(offer: Offer) -> bool:
    """Whether its messages say more of the topic than its name."""
    return offer.look is None and offer.types[0] in (*_PICTURES, messages.POINT_CLOUD)


def words_of(name: str) -> frozenset[str]:
    """The words of a topic's or node's name, in small letters, numbers apart: ``/front_cam2`` has front, cam and 2."""
    return frozenset(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name))


_DEPTH = words_of("depth disparity tof")
_DEPTH_FORM = _DEPTH | words_of(
    "aligned to color colour rgb image img raw rect rectified registered data hd qhd sd fhd hw sw camera cam map view "
    "point points cloud pointcloud ir infra stereo"
)
_LIDARS = words_of("lidar laser scan velodyne ouster livox hesai rslidar robosense os")
_PLACES = words_of(
    "front rear back left right top bottom upper lower center centre middle side corner fl fr rl rr "
    "frontleft frontright backleft backright rearleft rearright roof base"
)
_SAID = {
    "it labels pixels": words_of(
        "label labels mask masks segment segmented segmentation seg semantic semantics instance panoptic"
    ),
    "a program has drawn it": words_of(
        "debug dbg overlay annotated annotation annotations visualization visualisation viz rendered rendering render "
        "detection detections detected tracked result results heatmap colormap plot marker markers keypoints features "
        "feature track tracks tracking boxes bbox bboxes bounding flow matches matched edges canny contours "
        "threshold thresholded confidence saliency costmap map grid bev occupancy "
        "trajectory diff statistics"
    ),
}
_NO_CAMERA = {word: why for why, words in _SAID.items() for word in words}
_NO_SCAN = words_of("costmap voxel voxels octomap submap submaps mapping cluster clusters segmentation segmented")
_NO_SCAN_LAST = words_of(
    "map maps grid obstacle obstacles ground nonground marked marking clearing occupied free trajectory path keyframe "
    "keyframes features corner surf debug footprint frontier frontiers"
)
_LIDAR_PICTURE = re.compile(
    r"(range|reflec|reflectivity|signal|nearir|near_ir|amb|ambient|intensity|noise)_im(age|g)\d*$"
)
_NO_MICROPHONE = words_of("tts out output speaker speakers speech synthesis synthesizer playback play sink say beep")
_NO_SKIN = words_of(
    "cmd command commands setpoint goal target desired color colour hist histogram tire tires tyre tyres wheel "
    "barometer barometric air fluid water oil hydraulic pneumatic tank brake fuel altitude screen pad touchpad panel"
)
_MICROPHONE = words_of("mic mics microphone microphones capture input")  # what is called so is one, whatever else
_SKIN = words_of("tactile taxel taxels gelsight digit finger fingers fingertip fingertips")
_PROCESSING = words_of(
    "rviz rqt viz visualizer visualization debug renderer rendering apriltag aruco yolo detector detection "
    "segmentation segmenter costmap octomap voxel slam rtabmap mapping mapper annotator overlay classifier"
)
_DRIVER = words_of("camera cam driver usb realsense zed oak depthai lidar ouster velodyne livox thermal")
_WORLD = frozenset(("map", "odom", "world", "earth", "camera_init", "global"))  # frames of no sensor
_UNSURE = re.compile("flir|seek|infrared", re.IGNORECASE)  # makers of cameras of light, too, and names of such ones
_VISIBLE = words_of("blackfly chameleon grasshopper firefly oryx spinnaker pointgrey nir active")
_PLAYERS = words_of("bag rosbag player bridge unknown")  # nodes that publish what others have sent
_FORM = re.compile(
    r"image|view|raw|colou?r|rect|rectified|rgb|mono|gr[ae]y|bayer|data|points?\d*|pointcloud\d*|cloud\d*|events|audio|hd|qhd|sd|"
    r"compressed|resized|unrectified|stamped"
)


def judge(offer: Offer, known: Collection[str], others: Mapping[str, Offer], named: bool = False) -> Judgement | None:
    """What a topic is; ``None`` if nothing speaks for a sensor.

    Args:
        offer: The topic.
        known: Modalities that may be adopted.
        others: All topics, by name: a depth picture needs its ``CameraInfo``, and is not needed beside a cloud.
        named: The user names it, so what names and nodes say against it does not count.
    """
    ros_type = offer.types[0]
    if ros_type in (messages.MODALITY_FRAME, messages.STRING):
        return None
    fitting = [name for name in modalities.sensors() if name in known and ros_type in messages.types_for(name)]
    if not fitting:
        told = explain_type(ros_type)
        return Judgement(offer, "", 0.0, told) if told else None
    patterns = {name: modalities.get(name).topics for name in fitting}
    claims = [
        name for name in reversed(fitting) if patterns[name] and re.search(patterns[name], offer.topic, re.IGNORECASE)
    ]
    if claims and claims[0] not in modalities.NAMES:
        return _adopt(offer, claims[0], 2.0, f"by {ros_type} and its name")
    if ros_type in _PICTURES:
        return _picture(offer, fitting, claims, others, named)
    words = words_of(offer.topic)
    objections, sure = (_NO_SKIN, _SKIN) if ros_type in messages.MULTI_ARRAYS else (_NO_MICROPHONE, _MICROPHONE)
    foreign = () if named or words & sure else words & objections
    if foreign and (ros_type in messages.MULTI_ARRAYS or fitting == ["audio"]):
        kind = "skin" if ros_type in messages.MULTI_ARRAYS else "microphone"
        return Judgement(offer, "", 0.0, f"no {kind}'s, by its name ('{min(foreign)}')")
    if ros_type in messages.MULTI_ARRAYS:  # says nothing of what its values are
        return _adopt(offer, claims[0], 1.75, f"by {ros_type} and its name") if claims else None
    if ros_type in _CLOUDS and not named:
        against = _against_cloud(offer)
        if against:
            return Judgement(offer, "", 0.0, against)
    modality = claims[0] if claims else next((name for name in fitting if not patterns[name]), fitting[0])
    score = {messages.LASER_SCAN: 1.5, messages.AUDIO_DATA: 1.75}.get(ros_type, 2.0)
    score -= 0.5 * bool(words_of(offer.topic) & {"filtered", "downsampled", "downsample", "cropped", "concatenated"})
    return _adopt(offer, modality, score + _circumstances(offer), f"by {ros_type}{_seen(offer)}")


def _picture(
    offer: Offer, fitting: Sequence[str], claims: Sequence[str], others: Mapping[str, Offer], named: bool
) -> Judgement:
    encoding = (offer.look or Look()).encoding
    layout = ENCODINGS.get(encoding)
    measured = [name for name in claims if name in ("thermal", "touch")]
    words = words_of(raw_topic(offer.topic))
    if _is_depth(offer.topic, encoding, bool(measured)):
        return _depth(offer, encoding, words, fitting, others)
    if encoding == "32SC1":
        return Judgement(offer, "", 0.0, f"{encoding}: it labels pixels")
    against = "" if named else _against_picture(offer)
    if against:
        return Judgement(offer, "", 0.0, against)
    if layout is not None and layout.dtype not in ("u1", "u2") and not measured:
        return Judgement(offer, "", 0.0, f"{encoding}, which no camera sends")
    if measured[:1] == ["thermal"] and _is_of_light(offer, others, _is_colour(encoding)):
        measured = measured[1:]
    pictures = [name for name in fitting if name != "point_cloud"]
    modality = measured[0] if measured else pictures[0] if len(pictures) == 1 else "image"
    if modality not in pictures:
        return Judgement(offer, "", 0.0, f"the model has no encoder for {modality}")
    score = 2.0 if measured else 1.0 + (1.0 if _is_colour(encoding) else 0.5 if layout is None else 0.25)
    score -= 0.1 * (offer.types[0] == messages.COMPRESSED_IMAGE)
    score -= 0.5 * bool(words & {"infra", "ir", "infrared", "fisheye", "gray", "grey"} and not measured)
    score -= 0.25 * bool(words & {"rect", "rectified", "resized", "view"})
    score += 0.25 * bool(words & {"color", "colour", "rgb"} and not measured)
    return _adopt(offer, modality, score + _circumstances(offer), f"by {offer.types[0]}{_seen(offer)}")


def _is_depth(topic: str, encoding: str, measured: bool) -> bool:
    if encoding == "compressedDepth" or topic.endswith("/compressedDepth"):
        return not measured
    if encoding in ("16UC1", "32FC1") and not measured:  # REP 118
        return True
    parts = raw_topic(topic).split("/")
    said = [words_of(part) for part in parts if words_of(part) & _DEPTH]
    if said and all(
        words & {"camera", "cam", "sensor"} for words in said
    ):  # the device is named so; its picture is not
        layout = ENCODINGS.get(encoding)
        return not (layout is not None and layout.dtype == "u1") and not _last_words(topic) & {"color", "colour", "rgb"}
    return bool(said)


def _last_words(topic: str) -> frozenset[str]:
    """The words of the last two parts of a name: those before tell where a thing is, not what it is.

    A part that says it is a camera, as ``map_camera``, is the name of one.
    """
    parts = raw_topic(topic).split("/")[-2:]
    return words_of("/".join(part for part in parts if not re.search(r"(^|_)cam(era)?\d*$", part)))


def _depth(
    offer: Offer, encoding: str, words: frozenset[str], fitting: Sequence[str], others: Mapping[str, Offer]
) -> Judgement:
    """A depth picture: no camera's, but a cloud, if its camera is known and nothing better comes from the device."""
    what = f"a depth picture{f' ({encoding})' if encoding else ''}, no camera's"
    layout = ENCODINGS.get(encoding)
    if "disparity" in words or "confidence" in words or (layout is not None and layout.dtype not in ("u2", "f4")):
        return Judgement(offer, "", 0.0, "it shows depth, and measures none")
    if "point_cloud" not in fitting:
        return Judgement(offer, "", 0.0, what)
    info, device = camera_info_topic(offer.topic), raw_topic(offer.topic).rsplit("/", 2)[0]
    if not device:  # /rgbd_camera/depth_image, but not /depth/image
        parent = raw_topic(offer.topic).rpartition("/")[0]
        device = "" if words_of(parent) & _DEPTH else parent
    place = _place(offer.topic, device)
    for name, other in sorted(others.items()):
        near = name.startswith(f"{device}/") if device else bool(words_of(name) & _DEPTH)
        said = words_of(f"{name} {(other.look or Look()).frame}")
        if said & _LIDARS or (place and _place(name, device) and not place & _place(name, device)):
            continue  # of another device, though of one robot
        senders = {sender for sender in offer.publishers if not words_of(sender) & _PLAYERS}
        sensed = other.types[0] == messages.POINT_CLOUD and not _against_cloud(other)
        if sensed and (near or senders & set(other.publishers)):
            return Judgement(offer, "", 0.0, f"{what}; {name} of the same device is its cloud")
    if info not in others or others[info].types[0] != messages.CAMERA_INFO:
        return Judgement(offer, "", 0.0, f"{what}; as a point cloud it would need {info}")
    found = f"as depth with {info}{_seen(offer)}"
    return Judgement(offer, "point_cloud", 0.75 + _circumstances(offer), found, (("depth", device, *sorted(place)),))


def _place(topic: str, device: str) -> frozenset[str]:
    """What tells the depth pictures or clouds of several cameras in one folder apart, as ``front``."""
    return words_of(raw_topic(topic).removeprefix(device)) - _DEPTH_FORM


def _against_picture(offer: Offer) -> str:
    if _LIDAR_PICTURE.search(raw_topic(offer.topic)):
        return "a LiDAR has drawn it of its measurements"
    said = sorted(_last_words(offer.topic) & set(_NO_CAMERA))
    return f"{_NO_CAMERA[said[0]]}, by its name ('{said[0]}')" if said else _against_node(offer)


def _against_cloud(offer: Offer) -> str:
    said = sorted(words_of(offer.topic) & _NO_SCAN | words_of(offer.topic.rpartition("/")[2]) & _NO_SCAN_LAST)
    if said:
        return f"a program has made it, by its name ('{said[0]}')"
    frame = (offer.look or Look()).frame
    if frame.strip("/").rpartition("/")[2] in _WORLD:
        return f"a program has made it: its frame is '{frame}', no sensor's"
    return _against_node(offer)


def _against_node(offer: Offer) -> str:
    words = [words_of(name) for name in offer.publishers]
    made = bool(words) and all(one & _PROCESSING and not one & _DRIVER for one in words)
    return f"{offer.publishers[0]} has made it, which is no driver by its name" if made else ""


def _is_colour(encoding: str) -> bool:
    layout = ENCODINGS.get(encoding)
    return layout is not None and (layout.channels > 1 or layout.chroma > 0 or encoding.startswith("bayer"))


def _is_of_light(offer: Offer, others: Mapping[str, Offer], colour: bool) -> bool:
    """Whether a camera whose name may mean heat sees light: by colour, its mosaic or its driver's messages beside the
    topic, its product, the depth it serves for, or 8 bits of a maker of both.
    """
    pattern = modalities.get("thermal").topics
    if re.search(pattern, _UNSURE.sub("", offer.topic), re.IGNORECASE):
        return False  # more than that says heat
    told = words_of(" ".join((*offer.publishers, offer.topic, (offer.look or Look()).frame)))
    device = raw_topic(offer.topic).rsplit("/", 2)[0]
    grey = ENCODINGS.get((offer.look or Look()).encoding)
    flir = "infrared" not in told and "seek" not in told and grey is not None and grey.dtype == "u1"
    # An infrared camera of a device that measures depth sees the light of its own lamp.
    lit = "infrared" in told and any("depth" in words_of(name) and name.startswith(f"{device}/") for name in others)
    beside = f"{raw_topic(offer.topic).rpartition('/')[0]}/"
    mosaic = any(
        name.startswith(beside) and (other.look or Look()).encoding.startswith("bayer")
        for name, other in others.items()
    )
    maker = any(
        name.startswith(beside) and other.types[0].startswith("flir_camera_msgs/") for name, other in others.items()
    )
    return colour or lit or mosaic or maker or flir or bool(told & _VISIBLE)


def _circumstances(offer: Offer) -> float:
    """Who publishes, in which frame, how often."""
    look = offer.look or Look()
    drivers = any(words_of(name) & _DRIVER for name in offer.publishers)
    frames = {"optical", "camera", "cam", "lidar", "laser", "sensor"}
    return (
        0.25 * drivers
        + 0.25 * bool(words_of(look.frame) & frames)
        - 0.5 * (look.rate < 1)
        - 1.0 * (look.frame in _WORLD)
    )


def _seen(offer: Offer) -> str:
    look = offer.look or Look()
    parts = [look.encoding, f"frame {look.frame}" if look.frame else "", " and ".join(offer.publishers)]
    told = ", ".join(part for part in parts if part)
    return f" ({told})" if told else ""


def _adopt(offer: Offer, modality: str, score: float, reason: str) -> Judgement:
    marks: tuple[tuple[str, ...], ...] = ((modality, _device(offer.topic)),)
    frame = (offer.look or Look()).frame
    if frame and offer.types[0] == messages.POINT_CLOUD:  # of one place, and one part of the robot
        _, first, *rest = offer.topic.split("/")
        places = sorted(word for word in words_of(offer.topic) if word in _PLACES)
        marks += ((modality, "frame", frame, first if rest else "", *places),)
    return Judgement(offer, modality, score, reason, marks)


def _device(topic: str) -> str:
    """What is left of a name without the words that say in which form the data come."""
    words = raw_topic(topic).strip("/").split("/")
    kept = ("_".join(part for part in word.split("_") if not _FORM.fullmatch(part)) for word in words)
    return "/".join(part for part in kept if part)
