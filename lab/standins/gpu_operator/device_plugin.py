"""Stand-in of NVIDIA's device plugin: offers the node's described GPUs to the real kubelet as `nvidia.com/gpu`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from .device_plugin_api import FOLDER, HEALTHY, KUBELET_SOCKET, VERSION, messages
from .hardware import DescriptionError, Hardware, read_hardware
from .service import keep_trying, log, say_what_it_is

RESOURCE = "nvidia.com/gpu"
SOCKET = "nvidia-gpu.sock"
LOOK_EVERY = 3
STREAMS = 4


def identity(path: Path) -> tuple[int, int] | None:
    """What changes when a file is made anew; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def allocation(device_ids: Iterable[str]) -> Any:
    """The answer for one container: NVIDIA's runtime reads the GPUs from this variable."""
    answer = messages.ContainerAllocateResponse()
    answer.envs.add(key="NVIDIA_VISIBLE_DEVICES", value=",".join(device_ids))
    return answer


class Plugin:
    """The service that the kubelet calls, on a socket beside the kubelet's own."""

    def __init__(self, folder: Path, read: Callable[[], Hardware | None] = read_hardware) -> None:
        self.folder = folder
        self.read = read
        self.devices: tuple[str, ...] = ()
        self.changed = threading.Condition()
        self.version = 0
        self.server: grpc.Server | None = None
        self.registered: tuple | None = None

    # --- what the kubelet calls

    def options(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return messages.DevicePluginOptions()

    def list_and_watch(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        server = self.server
        context.add_callback(self._wake)
        sent = -1
        while context.is_active() and server is self.server:
            with self.changed:
                while self.version == sent and context.is_active() and server is self.server:
                    self.changed.wait()
                sent, devices = self.version, self.devices
            if context.is_active():
                yield messages.ListAndWatchResponse(
                    devices=[messages.Device(ID=device, health=HEALTHY) for device in devices]
                )

    def allocate(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = messages.AllocateResponse()
        for container in request.container_requests:
            strangers = set(container.devices_ids) - set(self.devices)
            if strangers:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unknown devices: {', '.join(sorted(strangers))}")
            answer.container_responses.append(allocation(container.devices_ids))
            log(f"allocated {', '.join(container.devices_ids)}")
        return answer

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    # --- what keeps it registered

    def start(self) -> None:
        self.stop()
        (self.folder / SOCKET).unlink(missing_ok=True)

        def handler(kind: Callable, call: Callable, request: str, response: str) -> grpc.RpcMethodHandler:
            return kind(
                call,
                request_deserializer=getattr(messages, request).FromString,
                response_serializer=getattr(messages, response).SerializeToString,
            )

        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {
            "GetDevicePluginOptions": handler(unary, self.options, "Empty", "DevicePluginOptions"),
            "ListAndWatch": handler(stream, self.list_and_watch, "Empty", "ListAndWatchResponse"),
            "Allocate": handler(unary, self.allocate, "AllocateRequest", "AllocateResponse"),
        }
        server = grpc.server(ThreadPoolExecutor(STREAMS))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{VERSION}.DevicePlugin", methods),))
        server.add_insecure_port(f"unix://{self.folder / SOCKET}")
        server.start()
        self.server = server

    def stop(self) -> None:
        server, self.server = self.server, None
        self.registered = None
        if server:
            self._wake()
            server.stop(grace=0).wait()

    def register(self) -> None:
        with grpc.insecure_channel(f"unix://{self.folder / KUBELET_SOCKET}") as channel:
            call = channel.unary_unary(
                f"/{VERSION}.Registration/Register",
                request_serializer=messages.RegisterRequest.SerializeToString,
                response_deserializer=messages.Empty.FromString,
            )
            call(
                messages.RegisterRequest(
                    version=VERSION,
                    endpoint=SOCKET,
                    resource_name=RESOURCE,
                    options=messages.DevicePluginOptions(),
                ),
                timeout=10,
            )

    def read_devices(self) -> None:
        hardware = self.read()
        devices = hardware.device_ids if hardware else ()
        with self.changed:
            if devices != self.devices:
                self.devices = devices
                self.version += 1
                self.changed.notify_all()
                log(f"{len(devices)} devices: {hardware.product if hardware else 'no GPU on this node'}")

    def look(self) -> float:
        """Serve and register, again whenever the kubelet has started anew: it empties the folder then."""
        try:
            self.read_devices()
        except DescriptionError as error:
            log(f"the devices stay as they are: {error}")
        kubelet, own = identity(self.folder / KUBELET_SOCKET), identity(self.folder / SOCKET)
        if self.registered is not None and self.registered == (kubelet, own):
            return LOOK_EVERY
        if kubelet is None:
            if self.registered is not None:
                log("the kubelet's socket is gone; waiting for it")
                self.registered = None
            return LOOK_EVERY
        self.start()
        self.register()
        self.registered = (kubelet, identity(self.folder / SOCKET))
        log(f"registered {RESOURCE} with the kubelet")
        return LOOK_EVERY


def main() -> int:
    say_what_it_is("nvidia-device-plugin")
    plugin = Plugin(Path(os.environ.get("DEVICE_PLUGIN_FOLDER", FOLDER)))
    try:
        return keep_trying("nvidia-device-plugin", plugin.look)
    finally:
        # Streams that the kubelet holds open would keep the program alive.
        plugin.stop()


if __name__ == "__main__":
    sys.exit(main())
