"""Which topics are taken for sensors', by the topics of real drivers. Needs no ROS."""

from __future__ import annotations

import re

import pytest

from omnibind_core import modalities
from omnibind_core.errors import ConfigError
from omnibind_ros import messages
from omnibind_ros.graph.discovery import Adopted, Discovery, DiscoveryRules, modality_of, name_of
from omnibind_ros.graph.judging import Look, Offer, camera_info_topic, explain_type, look_of, substitute, words_of
from omnibind_ros.replay.setup import GivenParameters

IMAGE, JPEG, CLOUD, SCAN = messages.IMAGE, messages.COMPRESSED_IMAGE, messages.POINT_CLOUD, messages.LASER_SCAN
INFO = messages.CAMERA_INFO
FLOATS = "std_msgs/msg/Float32MultiArray"


def offer(topic, ros_type=IMAGE, encoding="", frame="", *, by="/driver", rate=30.0):
    return Offer(topic, (ros_type,), (by,), Look(encoding, frame, rate))


def chosen(*offers, limit=8, **rules):
    patterns = {name: tuple(map(re.compile, texts)) for name, texts in rules.items()}
    discovery = Discovery(DiscoveryRules(limit=limit, **patterns))
    found = discovery.choose(offers, modalities.NAMES, ())
    return {item.offer.topic: item.modality for item in found}, {**discovery.excluded, **discovery.refused}


# Per driver: its topics, what they are taken for, and what is left out and why.
DRIVERS = {
    "realsense2_camera": (
        [
            offer("/camera/camera/color/image_raw", IMAGE, "rgb8", "camera_color_optical_frame", by="/camera/camera"),
            offer("/camera/camera/color/image_raw/compressed", JPEG, "rgb8", by="/camera/camera"),
            offer("/camera/camera/depth/image_rect_raw", IMAGE, "16UC1", by="/camera/camera"),
            offer("/camera/camera/depth/image_rect_raw/compressedDepth", JPEG, "compressedDepth", by="/camera/camera"),
            offer("/camera/camera/depth/camera_info", INFO, by="/camera/camera"),
            offer("/camera/camera/aligned_depth_to_color/image_raw", IMAGE, "16UC1", by="/camera/camera"),
            offer("/camera/camera/aligned_depth_to_color/camera_info", INFO, by="/camera/camera"),
            offer("/camera/camera/infra1/image_rect_raw", IMAGE, "mono8", by="/camera/camera"),
            offer("/camera/camera/depth/color/points", CLOUD, by="/camera/camera"),
            offer("/camera/camera/imu", "sensor_msgs/msg/Imu", by="/camera/camera"),
        ],
        {
            "/camera/camera/color/image_raw": "image",
            "/camera/camera/infra1/image_rect_raw": "image",
            "/camera/camera/depth/color/points": "point_cloud",
        },
        {
            "/camera/camera/depth/image_rect_raw": "depth/color/points of the same device is its cloud",
            "/camera/camera/imu": "an inertial reading: omnibind has no modality for it",
        },
    ),
    "realsense2_camera without a cloud": (
        [
            offer("/camera/camera/depth/image_rect_raw", IMAGE, "16UC1"),
            offer("/camera/camera/depth/camera_info", INFO),
            offer("/camera/camera/aligned_depth_to_color/image_raw", IMAGE, "16UC1"),
            offer("/camera/camera/aligned_depth_to_color/camera_info", INFO),
        ],
        {"/camera/camera/aligned_depth_to_color/image_raw": "point_cloud"},
        {"/camera/camera/depth/image_rect_raw": "shows what /camera/camera/aligned_depth_to_color/image_raw shows"},
    ),
    "ouster-ros": (
        [
            offer("/ouster/points", CLOUD, frame="os_lidar", by="/ouster/os_driver"),
            offer("/ouster/points2", CLOUD, frame="os_lidar", by="/ouster/os_driver"),
            *(offer(f"/ouster/{kind}_image", IMAGE, "mono16", "os_lidar") for kind in ("range", "reflec", "signal")),
            offer("/ouster/nearir_image", IMAGE, "mono16", "os_lidar"),
            offer("/ouster/range_image2", IMAGE, "mono16", "os_lidar"),
            offer("/ouster/imu", "sensor_msgs/msg/Imu"),
        ],
        {"/ouster/points": "point_cloud"},
        {
            "/ouster/points2": "it shows what /ouster/points shows",
            "/ouster/range_image": "a LiDAR has drawn it",
            "/ouster/nearir_image": "a LiDAR has drawn it",
            "/ouster/range_image2": "a LiDAR has drawn it",
        },
    ),
    "zed": (
        [
            offer("/zed/zed_node/rgb/image_rect_color", IMAGE, "bgra8", by="/zed/zed_node"),
            offer("/zed/zed_node/rgb_raw/image_raw_color", IMAGE, "bgra8", by="/zed/zed_node"),
            offer("/zed/zed_node/left_gray/image_rect_gray", IMAGE, "mono8", by="/zed/zed_node"),
            offer("/zed/zed_node/left/image_rect_color", IMAGE, "bgra8", by="/zed/zed_node"),
            offer("/zed/zed_node/depth/depth_registered", IMAGE, "32FC1", by="/zed/zed_node"),
            offer("/zed/zed_node/depth/camera_info", INFO, by="/zed/zed_node"),
            offer("/zed/zed_node/disparity/disparity_image", "stereo_msgs/msg/DisparityImage", by="/zed/zed_node"),
            offer("/zed/zed_node/confidence/confidence_map", IMAGE, "32FC1", by="/zed/zed_node"),
            offer("/zed/zed_node/point_cloud/cloud_registered", CLOUD, by="/zed/zed_node"),
        ],
        {
            "/zed/zed_node/rgb_raw/image_raw_color": "image",
            "/zed/zed_node/left/image_rect_color": "image",
            "/zed/zed_node/point_cloud/cloud_registered": "point_cloud",
        },
        {
            "/zed/zed_node/rgb/image_rect_color": "it shows what /zed/zed_node/rgb_raw/image_raw_color shows",
            "/zed/zed_node/confidence/confidence_map": "shows depth, and measures none",
            "/zed/zed_node/disparity/disparity_image": "take the point cloud",
        },
    ),
    "depthai (its depth has no name for it)": (
        [
            offer("/oak/rgb/image_raw", IMAGE, "bgr8", by="/oak"),
            offer("/oak/stereo/image_raw", IMAGE, "16UC1", by="/oak"),
            offer("/oak/stereo/camera_info", INFO, by="/oak"),
        ],
        {"/oak/rgb/image_raw": "image", "/oak/stereo/image_raw": "point_cloud"},
        {},
    ),
    "orbbec": (
        [
            offer("/camera/color/image_raw", IMAGE, "rgb8"),
            offer("/camera/depth/image_raw", IMAGE, "16UC1"),
            offer("/camera/ir/image_raw", IMAGE, "mono8"),
            offer("/camera/infrared/image_raw", IMAGE, "mono16"),
        ],
        {
            "/camera/color/image_raw": "image",
            "/camera/ir/image_raw": "image",
            "/camera/infrared/image_raw": "image",
        },
        {"/camera/depth/image_raw": "as a point cloud it would need /camera/depth/camera_info"},
    ),
    "usb_cam and image_proc": (
        [
            offer("/image_raw", IMAGE, "rgb8", "default_cam", by="/usb_cam"),
            offer("/image_raw/compressed", JPEG, "rgb8", by="/usb_cam"),
            offer("/image_mono", IMAGE, "mono8", by="/image_proc"),
            offer("/image_rect", IMAGE, "mono8", by="/image_proc"),
            offer("/image_rect_color", IMAGE, "rgb8", by="/image_proc"),
        ],
        {"/image_raw": "image"},
        {"/image_rect_color": "it shows what /image_raw shows"},
    ),
    "only compressed": (
        [offer("/front/image_raw/compressed", JPEG, "bgr8"), offer("/front/image_raw/theora", "x/msg/Packet")],
        {"/front/image_raw/compressed": "image"},
        {},
    ),
    "spinnaker_camera_driver, by colour": (
        [offer("/flir_camera/image_raw", IMAGE, "bayer_rggb8", by="/flir_camera")],
        {"/flir_camera/image_raw": "image"},
        {},
    ),
    "spinnaker_camera_driver, grey, by its product": (
        [offer("/flir/image_raw", IMAGE, "mono8", "blackfly_s", by="/flir/blackfly_s")],
        {"/flir/image_raw": "image"},
        {},
    ),
    "spinnaker_camera_driver, grey, by its usual names": (
        [
            offer("/flir_camera/image_raw", IMAGE, "mono8", "flir_camera", by="/flir_camera"),
            offer("/flir_camera/camera_info", INFO, by="/flir_camera"),
            offer("/flir_camera/meta", "flir_camera_msgs/msg/ImageMetaData", by="/flir_camera"),
            offer("/flir_side/image_raw", IMAGE, "mono16", "flir_side", by="/flir_side"),
            offer("/flir_side/meta", "flir_camera_msgs/msg/ImageMetaData", by="/flir_side"),
            offer("/flir_rear/image_raw", IMAGE, "mono8", "flir_rear", by="/flir_rear"),
            offer("/flir_lepton/image_raw", IMAGE, "mono8", "lepton", by="/flir_lepton"),
            offer("/seek/image_raw", IMAGE, "mono8", by="/seek_driver"),
        ],
        {
            "/flir_camera/image_raw": "image",
            "/flir_side/image_raw": "image",
            "/flir_rear/image_raw": "image",
            "/flir_lepton/image_raw": "thermal",
            "/seek/image_raw": "thermal",
        },
        {},
    ),
    "flir_camera, its grey picture": (
        [
            offer("/flir_camera/image_raw", IMAGE, "bayer_rggb8", by="/flir_camera"),
            offer("/flir_camera/image_mono", IMAGE, "mono8", by="/flir_camera"),
        ],
        {"/flir_camera/image_raw": "image"},
        {"/flir_camera/image_mono": "shows what"},
    ),
    "visual odometry": (
        [
            offer("/vins_estimator/image_track", IMAGE, "bgr8", by="/vins_estimator"),
            offer("/feature_tracker/feature_img", IMAGE, "bgr8", by="/feature_tracker"),
            offer("/orb_slam3/tracking_image", IMAGE, "bgr8", by="/orb_slam3"),
        ],
        {},
        dict.fromkeys(
            ["/vins_estimator/image_track", "/feature_tracker/feature_img", "/orb_slam3/tracking_image"], "has drawn it"
        ),
    ),
    "flir_boson_usb": (
        [offer("/flir_boson/image_raw", IMAGE, "bgr8", "boson_camera", by="/flir_boson/flir_boson_usb_node")],
        {"/flir_boson/image_raw": "thermal"},
        {},
    ),
    "lepton, optris": (
        [
            offer("/lepton/image_raw", IMAGE, "16UC1", by="/lepton"),
            offer("/optris/thermal_image", IMAGE, "mono16", by="/optris_imager"),
            offer("/flir_ax/image_raw", IMAGE, "mono16", by="/ax5"),
        ],
        {
            "/lepton/image_raw": "thermal",
            "/optris/thermal_image": "thermal",
            "/flir_ax/image_raw": "thermal",
        },
        {},
    ),
    "velodyne, livox, scanners": (
        [
            offer("/velodyne_points", CLOUD, frame="velodyne", by="/velodyne_transform_node"),
            offer("/livox/lidar", "livox_ros_driver2/msg/CustomMsg", by="/livox_lidar_publisher"),
            offer("/scan", SCAN, frame="laser", by="/rplidar_node"),
        ],
        {"/velodyne_points": "point_cloud", "/scan": "point_cloud"},
        {"/livox/lidar": "set the driver's xfer_format to 0"},
    ),
    "event cameras": (
        [
            offer("/event_camera/events", messages.EVENT_PACKET, by="/event_camera"),
            offer("/event_camera/image_raw", IMAGE, "bgr8", by="/renderer"),
            offer("/prophesee/camera/cd_events_buffer", messages.PROPHESEE_EVENTS, by="/prophesee"),
            offer("/dvs/image_raw", IMAGE, "mono8", by="/dvs_driver"),
        ],
        {
            "/event_camera/events": "event",
            "/prophesee/camera/cd_events_buffer": "event",
            "/dvs/image_raw": "image",
        },
        {"/event_camera/image_raw": "/renderer has made it"},
    ),
    "tactile": (
        [
            offer("/digit/image_raw", IMAGE, "bgr8"),
            offer("/digit_left/image_raw", IMAGE, "rgb8"),
            offer("/gsmini_rawimg_0", IMAGE, "bgr8"),
            offer("/tactile/pressure", FLOATS),
            offer("/joint_commands", FLOATS),
            offer("/digital_camera/image_raw", IMAGE, "rgb8"),
        ],
        {
            "/digit/image_raw": "touch",
            "/digit_left/image_raw": "touch",
            "/gsmini_rawimg_0": "touch",
            "/tactile/pressure": "touch",
            "/digital_camera/image_raw": "image",
        },
        {},
    ),
    "nav2, octomap, SLAM": (
        [
            offer("/velodyne/points", CLOUD, frame="velodyne"),
            offer("/global_costmap/voxel_grid", CLOUD, frame="map", by="/global_costmap/global_costmap"),
            offer("/global_costmap/costmap", "nav_msgs/msg/OccupancyGrid"),
            offer("/local_costmap/clearing_endpoints", CLOUD, frame="odom"),
            offer("/voxel_marked_cloud", CLOUD, frame="odom", by="/nav2_costmap_2d_cloud"),
            offer("/octomap_point_cloud_centers", CLOUD, frame="map", by="/octomap_server"),
            offer("/rtabmap/cloud_map", CLOUD, frame="map", by="/rtabmap"),
            offer("/cloud_registered", CLOUD, frame="camera_init", by="/fastlio"),
        ],
        {"/velodyne/points": "point_cloud"},
        {
            "/global_costmap/voxel_grid": "by its name ('costmap')",
            "/octomap_point_cloud_centers": "by its name ('octomap')",
            "/cloud_registered": "its frame is 'camera_init'",
        },
    ),
    "debug and label pictures": (
        [
            offer("/apriltag/debug", IMAGE, "bgr8"),
            offer("/yolo/dbg_image", IMAGE, "bgr8"),
            offer("/detectnet/overlay", IMAGE, "rgb8"),
            offer("/segmentation/image", IMAGE, "mono8"),
            offer("/front/classes", IMAGE, "32SC1"),
            offer("/tags/image", IMAGE, "bgr8", by="/apriltag_node"),
            offer("/points_on_picture", IMAGE, "64FC1"),
        ],
        {},
        {
            "/apriltag/debug": "a program has drawn it, by its name ('debug')",
            "/yolo/dbg_image": "drawn it",
            "/segmentation/image": "it labels pixels",
            "/front/classes": "32SC1: it labels pixels",
            "/tags/image": "/apriltag_node has made it",
            "/points_on_picture": "64FC1, which no camera sends",
        },
    ),
    "a camera that is named after what else it does": (
        [
            offer("/depth_camera/image_raw", IMAGE, "rgb8", by="/depth_camera_controller"),
            offer("/depth_camera/depth/image_raw", IMAGE, "32FC1", by="/depth_camera_controller"),
            offer("/depth_camera/points", CLOUD, by="/depth_camera_controller"),
            offer("/debug_robot/front/image_raw", IMAGE, "bgr8", by="/slam_camera_driver"),
            offer("/d435/depth/image_rect_raw", IMAGE, "rgb8"),
        ],
        {
            "/depth_camera/image_raw": "image",
            "/depth_camera/points": "point_cloud",
            "/debug_robot/front/image_raw": "image",
        },
        {
            "/depth_camera/depth/image_raw": "/depth_camera/points of the same device",
            "/d435/depth/image_rect_raw": "it shows depth, and measures none",
        },
    ),
    "carla": (
        [
            offer("/carla/ego/rgb_front/image", IMAGE, "bgra8", "ego/rgb_front", by="/carla_ros_bridge"),
            offer("/carla/ego/semantic_segmentation_front/image", IMAGE, "bgra8", by="/carla_ros_bridge"),
            offer("/carla/ego/depth_front/image", IMAGE, "32FC1", by="/carla_ros_bridge"),
            offer("/carla/ego/depth_front/camera_info", INFO, by="/carla_ros_bridge"),
            offer("/carla/ego/lidar", CLOUD, frame="ego/lidar", by="/carla_ros_bridge"),
        ],
        {
            "/carla/ego/rgb_front/image": "image",
            "/carla/ego/lidar": "point_cloud",
            "/carla/ego/depth_front/image": "point_cloud",
        },
        {"/carla/ego/semantic_segmentation_front/image": "it labels pixels"},
    ),
    "autoware's LiDAR in many forms": (
        [
            offer("/sensing/lidar/top/pointcloud_raw", CLOUD, frame="velodyne_top"),
            offer("/sensing/lidar/top/mirror_cropped/pointcloud", CLOUD, frame="velodyne_top"),
            offer("/sensing/lidar/top/outlier_filtered/pointcloud", CLOUD, frame="velodyne_top"),
            offer("/sensing/lidar/left_corner/pointcloud_raw", CLOUD, frame="velodyne_left"),
            offer("/perception/obstacle_segmentation/pointcloud", CLOUD, frame="base_link"),
            offer("/map/pointcloud_map", CLOUD, frame="map"),
        ],
        {
            "/sensing/lidar/top/pointcloud_raw": "point_cloud",
            "/sensing/lidar/left_corner/pointcloud_raw": "point_cloud",
        },
        {"/sensing/lidar/top/outlier_filtered/pointcloud": "it shows what /sensing/lidar/top/pointcloud_raw shows"},
    ),
    "spot: depth cameras in one folder": (
        [
            *(offer(f"/spot/depth/{side}/image", IMAGE, "16UC1", by="/spot") for side in ("frontleft", "frontright")),
            *(offer(f"/spot/depth/{side}/camera_info", INFO, by="/spot") for side in ("frontleft", "frontright")),
            offer("/spot/depth/back/image", IMAGE, "16UC1", by="/spot"),
            offer("/spot/depth/back/camera_info", INFO, by="/spot"),
            offer("/spot/depth/back/points", CLOUD, frame="back", by="/spot"),
        ],
        {
            "/spot/depth/frontleft/image": "point_cloud",
            "/spot/depth/frontright/image": "point_cloud",
            "/spot/depth/back/points": "point_cloud",
        },
        {"/spot/depth/back/image": "/spot/depth/back/points of the same device is its cloud"},
    ),
    "depth cameras side by side": (
        [
            *(offer(f"/camera/{side}/depth", IMAGE, "16UC1", by=f"/{side}") for side in ("front", "back")),
            *(offer(f"/camera/{side}/camera_info", INFO, by=f"/{side}") for side in ("front", "back")),
            *(offer(f"/depth_{side}/image", IMAGE, "16UC1") for side in ("left", "right")),
            *(offer(f"/depth_{side}/camera_info", INFO) for side in ("left", "right")),
        ],
        dict.fromkeys(
            ("/camera/front/depth", "/camera/back/depth", "/depth_left/image", "/depth_right/image"), "point_cloud"
        ),
        {},
    ),
    "LiDARs with their driver's usual frame": (
        [
            offer("/velodyne_front", CLOUD, frame="velodyne", by="/a"),
            offer("/velodyne_rear", CLOUD, frame="velodyne", by="/b"),
            offer("/robot/left/points", CLOUD, frame="laser", by="/c"),
            offer("/robot/right/points", CLOUD, frame="laser", by="/d"),
        ],
        {
            "/velodyne_front": "point_cloud",
            "/velodyne_rear": "point_cloud",
            "/robot/left/points": "point_cloud",
            "/robot/right/points": "point_cloud",
        },
        {},
    ),
    "AirSim: one node for all": (
        [
            offer("/airsim_node/Drone/front_center/DepthPlanar", IMAGE, "32FC1", by="/airsim_node"),
            offer("/airsim_node/Drone/front_center/camera_info", INFO, by="/airsim_node"),
            offer("/airsim_node/Drone/lidar/LidarCustom", CLOUD, frame="Drone/LidarCustom", by="/airsim_node"),
        ],
        {
            "/airsim_node/Drone/front_center/DepthPlanar": "point_cloud",
            "/airsim_node/Drone/lidar/LidarCustom": "point_cloud",
        },
        {},
    ),
    "what only sounds like a sensor": (
        [
            offer("/mic/audio", messages.AUDIO_DATA),
            offer("/tts/audio", messages.AUDIO_DATA),
            offer("/audio_out", messages.AUDIO_DATA),
            offer("/tire_pressure", FLOATS),
            offer("/cmd_touch", FLOATS),
            offer("/skin_color/hist", FLOATS),
            offer("/yolo/bbox_image", IMAGE, "bgr8"),
            offer("/ouster/amb_image", IMAGE, "mono16"),
            offer("/velodyne/range_img", IMAGE, "mono16"),
            offer("/gripper/tactile_pad", FLOATS),
            offer("/conference_speaker/microphone/audio", messages.AUDIO_DATA),
        ],
        {"/mic/audio": "audio", "/gripper/tactile_pad": "touch", "/conference_speaker/microphone/audio": "audio"},
        {
            "/tts/audio": "no microphone's, by its name ('tts')",
            "/audio_out": "no microphone's, by its name ('out')",
            "/tire_pressure": "no skin's, by its name ('tire')",
            "/cmd_touch": "no skin's, by its name ('cmd')",
            "/skin_color/hist": "no skin's, by its name ('color')",
            "/yolo/bbox_image": "a program has drawn it",
            "/ouster/amb_image": "a LiDAR has drawn it",
            "/velodyne/range_img": "a LiDAR has drawn it",
        },
    ),
    "a bag that is played": (
        [
            offer("/velodyne_points", CLOUD, frame="velodyne", by="/rosbag2_player"),
            offer("/cam/depth/image_raw", IMAGE, "16UC1", by="/rosbag2_player"),
            offer("/cam/depth/camera_info", INFO, by="/rosbag2_player"),
            offer("/optris/thermal_image", IMAGE, "mono16", by="/rosbag2_player"),
            offer("/optris/thermal_image_view", IMAGE, "rgb8", by="/rosbag2_player"),
        ],
        {"/velodyne_points": "point_cloud", "/cam/depth/image_raw": "point_cloud", "/optris/thermal_image": "thermal"},
        {},
    ),
    "gazebo's depth camera over its bridge": (
        [
            offer("/rgbd_camera/image", IMAGE, "rgb8", by="/ros_gz_bridge"),
            offer("/rgbd_camera/depth_image", IMAGE, "32FC1", by="/ros_gz_bridge"),
            offer("/rgbd_camera/camera_info", INFO, by="/ros_gz_bridge"),
            offer("/rgbd_camera/points", CLOUD, by="/ros_gz_bridge"),
        ],
        {"/rgbd_camera/image": "image", "/rgbd_camera/points": "point_cloud"},
        {"/rgbd_camera/depth_image": "/rgbd_camera/points of the same device is its cloud"},
    ),
    "a depth camera whose only cloud is a map": (
        [
            offer("/zed/zed_node/depth/depth_registered", IMAGE, "32FC1", by="/zed/zed_node"),
            offer("/zed/zed_node/depth/camera_info", INFO, by="/zed/zed_node"),
            offer("/zed/zed_node/mapping/fused_cloud", CLOUD, frame="map", by="/zed/zed_node"),
        ],
        {"/zed/zed_node/depth/depth_registered": "point_cloud"},
        {"/zed/zed_node/mapping/fused_cloud": "a program has made it"},
    ),
    "force, plain words, our own frames": (
        [
            offer("/ft_sensor/wrench", "geometry_msgs/msg/WrenchStamped"),
            offer("/speech", messages.STRING),
            offer("/omnibind/camera", messages.MODALITY_FRAME),
            offer("/tf", "tf2_msgs/msg/TFMessage"),
        ],
        {},
        {"/ft_sensor/wrench": "a force-torque reading: omnibind has no modality for it; write a plug-in (docs/own_mod"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_topics_of_a_driver_are_taken_for_what_they_are(driver):
    offers, wanted, reasons = DRIVERS[driver]
    found, left_out = chosen(*offers)
    assert found == wanted, left_out
    assert not set(found) & set(left_out)
    for topic, reason in reasons.items():
        assert reason in left_out[topic]


def test_the_best_get_the_slots_and_no_modality_takes_all():
    cameras = [offer(f"/a{number}/image_raw", IMAGE, "mono8") for number in range(9)]
    better = offer("/z/color/image_raw", IMAGE, "rgb8", "z_optical_frame", by="/z/camera_driver")
    others = [
        offer("/zz/points", CLOUD),
        offer("/zz/audio", messages.AUDIO_CHUNK),
        offer("/zz/thermal", IMAGE, "mono16"),
    ]
    found, left_out = chosen(*cameras, better, *others, limit=5)
    assert {"/z/color/image_raw", "/zz/points", "/zz/audio", "/zz/thermal"} < set(found) and len(found) == 5
    assert set(left_out.values()) == {"5 topics are adopted already (discover_limit)"}


def test_what_is_adopted_stays_unless_something_is_clearly_better():
    discovery = Discovery(DiscoveryRules(limit=1))
    first, same, better = (
        offer("/m/image_raw", IMAGE, "mono8"),
        offer("/a/image_raw", IMAGE, "mono8"),
        offer("/z/image_raw", IMAGE, "rgb8", "optical"),
    )
    (judgement,) = discovery.choose([first], modalities.NAMES, ())
    discovery.adopted["m"] = Adopted(judgement, 0.0)
    assert [item.offer.topic for item in discovery.choose([first, same], modalities.NAMES, ())] == ["/m/image_raw"]
    assert [item.offer.topic for item in discovery.choose([same], modalities.NAMES, ())] == ["/m/image_raw"], "silent"
    assert [item.offer.topic for item in discovery.choose([first, better], modalities.NAMES, ())] == ["/z/image_raw"]
    assert discovery.lost([], 11.0) == ["m"]


def test_another_form_of_what_is_a_sensors_already_is_left_out():
    discovery = Discovery(DiscoveryRules())
    offers = [offer("/front/image_raw"), offer("/front/image_rect"), offer("/rear/image_raw")]
    (found,) = discovery.choose(offers, modalities.NAMES, {"/front/image_raw"})
    assert found.offer.topic == "/rear/image_raw"
    assert discovery.excluded == {"/front/image_rect": "it shows what /front/image_raw shows"}


def test_pictures_are_looked_at_before_they_are_adopted():
    discovery = Discovery(DiscoveryRules())
    unseen = [
        Offer("/oak/stereo/image_raw", (IMAGE,), look=None),
        Offer("/events", (messages.EVENT_PACKET,), look=None),
    ]
    unseen.append(Offer("/apriltag/debug", (IMAGE,), look=None))
    assert [item.offer.topic for item in discovery.choose(unseen, modalities.NAMES, ())] == ["/events"]
    assert [item.topic for item in discovery.pending] == ["/oak/stereo/image_raw"], "names already speak against debug"
    assert "/oak/stereo/image_raw" not in discovery.excluded


def test_lists_of_topics_that_are_wanted_and_unwanted():
    offers = [offer("/apriltag/debug", IMAGE, "bgr8"), offer("/front/image_raw"), offer("/rear/image_raw")]
    found, left_out = chosen(*offers, exclude=["rear"])
    assert set(found) == {"/front/image_raw"} and left_out["/rear/image_raw"] == "discover_exclude names it ('rear')"
    found, left_out = chosen(*offers, include=["debug"])
    assert found == {"/apriltag/debug": "image"}, "whoever names it wants it"
    assert left_out["/front/image_raw"] == "discover_include does not name it"
    (here, there), left_out = chosen(
        offer("/r1/debug", IMAGE, "bgr8"), offer("/r1/a"), offer("/r1/b"), include=["^/r1/"]
    )
    assert (here, there) == ("/r1/a", "/r1/b") and "drawn it" in left_out["/r1/debug"], "a namespace names no topic"
    assert set(chosen(offer("/tags/image", by="/apriltag"), include=["^/tags/image$"])[0]) == {"/tags/image"}
    depth = offer("/debug/depth", IMAGE, "16UC1")
    assert not chosen(depth, include=["debug"])[0], "what it shows is no matter of names"


def test_two_types_on_one_topic_are_told():
    _, left_out = chosen(Offer("/front/image", (IMAGE, JPEG)))
    assert left_out == {"/front/image": f"it has messages of 2 types: {', '.join(sorted((IMAGE, JPEG)))}"}


def test_what_is_left_out_is_told_once_and_when_it_changes():
    discovery = Discovery(DiscoveryRules())
    offers = [offer("/a/debug"), offer("/b/debug"), offer("/c/mask")]
    discovery.choose(offers, modalities.NAMES, ())
    lines = discovery.news().splitlines()
    assert lines[0] == "discovery: 0 adopted: none"
    assert "  left out: /a/debug, /b/debug: a program has drawn it, by its name ('debug')" in lines and len(lines) == 3
    discovery.choose(offers, modalities.NAMES, ())
    assert discovery.news() == ""
    discovery.choose(offers[:1], modalities.NAMES, ())
    assert "/c/mask" not in discovery.news()


def test_what_a_message_says():
    class Header:
        frame_id = "front"

    class Message:
        header, encoding, format = Header, "mono8", "bgr8; jpeg compressed bgr8"

    assert look_of(IMAGE, Message, 5.0) == ("mono8", "front", 5.0)
    assert look_of(JPEG, Message).encoding == "bgr8" and look_of(CLOUD, Message).encoding == ""
    Message.format = "16UC1; compressedDepth png"
    assert look_of(JPEG, Message).encoding == "compressedDepth"
    Message.format = "jpeg"
    assert look_of(JPEG, Message).encoding == ""
    assert modality_of("/flir/image", IMAGE, modalities.NAMES, Look("rgb8")) == "image"


def test_words_of_names():
    assert words_of("/front_cam2/IRCamera/nearIR") == {"front", "cam", "2", "ir", "camera", "near"}


def test_the_topic_beside_and_other_forms_of_one():
    assert camera_info_topic("/c/depth/image_raw/compressedDepth") == "/c/depth/camera_info"
    assert camera_info_topic("depth") == "camera_info"
    compressed = {"/c/image_raw/compressed", "/c/image_raw/theora"}
    told = "but /c/image_raw/compressed exists: set the sensor's topic to it"
    assert substitute("/c/image_raw", compressed.__contains__) == told
    assert "/c/image_raw exists" in substitute("/c/image_raw/compressed", {"/c/image_raw"}.__contains__)
    assert "not decoded here" in substitute("/c/image_raw", {"/c/image_raw/theora"}.__contains__)
    assert substitute("/c/image_raw", set().__contains__) == ""
    assert explain_type("tf2_msgs/msg/TFMessage") == ""


def test_no_topic_takes_the_name_of_a_parameter():
    parameters = GivenParameters({"discover": True, "sensors": ["camera"]})
    before = dict(parameters._values)
    for topic in ("/objects/image_raw", "/rate/image_raw", "/camera/image_raw", "/use_sim_time/image_raw"):
        name = name_of(topic, "/", parameters.taken)
        assert name == f"{topic.split('/')[1]}_2"
        parameters.add(name, type="image", topic=topic)
        parameters.remove(name)
    for taken in ("objects", "camera"):
        with pytest.raises(ConfigError, match=f"parameter '{taken}.(enabled|type)' is there already"):
            parameters.add(taken, type="image")
        assert parameters._values == before and f"{taken}.enabled" in parameters


def test_parameters_that_every_node_has_are_known():
    parameters = GivenParameters({})
    assert not parameters.unknown(["use_sim_time", "start_type_description_service", "qos_overrides./clock.depth"])
