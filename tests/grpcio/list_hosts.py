#!/usr/bin/env python3
"""Lists hosts through the admin API, with nothing but an operator's bundle and server reflection.

    list_hosts.py BUNDLE MASTER_NAME [METHOD]

No code is generated and no .proto file is read: the master describes its own API. MASTER_NAME is the name that
`picket-master init --name` was given. METHOD is a method of HostService that takes a plain request, by default
ListHosts; the answer is printed as JSON.
"""

import base64
import json
import ssl
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "picket.admin.v1.HostService"


def pem(kind, der):
    """One PEM block of what the bundle holds in base64 (DER)."""
    if kind == "CERTIFICATE":
        return ssl.DER_cert_to_PEM_cert(base64.b64decode(der)).encode()
    lines = "\n".join(der[at : at + 64] for at in range(0, len(der), 64))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n".encode()


def read(path):
    """The JSON in a bundle: between the lines for people and the line with the checksum."""
    with open(path, encoding="ascii") as file:
        lines = file.read().splitlines()
    return json.loads("\n".join(line for line in lines if not line.startswith(("#", "sha256 "))))


def call(bundle, name, method="ListHosts"):
    """Makes one call of the service with an empty request and returns the answer."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=b"".join(pem("CERTIFICATE", der) for der in bundle["authorities"]),
        private_key=pem("PRIVATE KEY", bundle["key"]),
        certificate_chain=pem("CERTIFICATE", bundle["certificate"]),
    )
    # The address may be a tunnel's; the certificate names the master.
    options = [("grpc.ssl_target_name_override", name)]
    with grpc.secure_channel(bundle["masters"][0], credentials, options) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        described = pool.FindServiceByName(SERVICE).FindMethodByName(method)
        request, response = (GetMessageClass(which) for which in (described.input_type, described.output_type))
        stub = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return stub(request(), timeout=10)


def main():
    try:
        answer = call(read(sys.argv[1]), *sys.argv[2:4])
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    print(json_format.MessageToJson(answer))


if __name__ == "__main__":
    main()
