"""The kubelet's device plugin API v1beta1, as far as the stand-in speaks it.

Same package, services and field numbers as k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1. The messages are made when the
program starts, so that they fit whatever protobuf release is installed.
"""

from __future__ import annotations

from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

VERSION = "v1beta1"
FOLDER = "/var/lib/kubelet/device-plugins"
KUBELET_SOCKET = "kubelet.sock"
HEALTHY = "Healthy"

# message: ((field, number, type), …); a type that starts with "*" is repeated.
MESSAGES = {
    "Empty": (),
    "DevicePluginOptions": (
        ("pre_start_required", 1, "bool"),
        ("get_preferred_allocation_available", 2, "bool"),
    ),
    "RegisterRequest": (
        ("version", 1, "string"),
        ("endpoint", 2, "string"),
        ("resource_name", 3, "string"),
        ("options", 4, "DevicePluginOptions"),
    ),
    "Device": (("ID", 1, "string"), ("health", 2, "string")),
    "ListAndWatchResponse": (("devices", 1, "*Device"),),
    "ContainerAllocateRequest": (("devices_ids", 1, "*string"),),
    "AllocateRequest": (("container_requests", 1, "*ContainerAllocateRequest"),),
    # A map is a repeated message of keys and values.
    "Variable": (("key", 1, "string"), ("value", 2, "string")),
    "ContainerAllocateResponse": (("envs", 1, "*Variable"),),
    "AllocateResponse": (("container_responses", 1, "*ContainerAllocateResponse"),),
}


def _messages() -> SimpleNamespace:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="speechops/deviceplugin_v1beta1.proto", package=VERSION, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            if kind in MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{VERSION}.{kind}"
            else:
                field.type = {"bool": kinds.TYPE_BOOL, "string": kinds.TYPE_STRING}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{VERSION}.{name}")) for name in MESSAGES}
    return SimpleNamespace(**made)


messages = _messages()
