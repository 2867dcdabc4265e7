"""What is said of frames and things: transforms and detections in, our own objects out. Duck-typed, without ROS."""

from omnibind_ros.messages.objects.calibration import PICTURE_KINDS, Calibration, Placement
from omnibind_ros.messages.objects.detections import DETECTIONS, DETECTIONS_2D, DETECTIONS_3D, DetectionReader
from omnibind_ros.messages.objects.predictions import fill_object, objects_of, place_box, set_vector
from omnibind_ros.messages.objects.rejections import Rejections
from omnibind_ros.messages.objects.transforms import TF_MESSAGE, TransformReader, transform_of

__all__ = [
    "DETECTIONS",
    "DETECTIONS_2D",
    "DETECTIONS_3D",
    "PICTURE_KINDS",
    "TF_MESSAGE",
    "Calibration",
    "DetectionReader",
    "Placement",
    "Rejections",
    "TransformReader",
    "fill_object",
    "objects_of",
    "place_box",
    "set_vector",
    "transform_of",
]
