"""Checks EC2 replies and parameters against botocore's model: model.py FOLDER

Standard input has a line ACTION PARAMETER for each parameter that is taken,
with N for the numbers of lists; one that the model doesn't know is printed.
Each file is ACTION[-what].xml. An element that the model doesn't know, or a
scalar that isn't of the model's type, is printed and makes the exit status 1.
The reply must also come out of botocore's own parser.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

import botocore.parsers
import botocore.session

session = botocore.session.get_session()
model = session.get_service_model("ec2")
faults = []


def plain(tag):
    return tag.rsplit("}", 1)[-1]


def check(where, element, shape):
    if shape.type_name == "structure":
        members = {m.serialization.get("name", n): m for n, m in shape.members.items()}
        for child in element:
            name = plain(child.tag)
            if name not in members:
                faults.append(f"{where}: <{name}> is not in the model")
            else:
                check(f"{where}/{name}", child, members[name])
    elif shape.type_name == "list":
        item = shape.member.serialization.get("name", "member")
        for child in element:
            if plain(child.tag) != item:
                faults.append(f"{where}: <{plain(child.tag)}> where <{item}> is expected")
            else:
                check(f"{where}/{item}", child, shape.member)
    elif shape.type_name in ("integer", "long"):
        int(element.text)
    elif shape.type_name == "boolean" and element.text not in ("true", "false"):
        faults.append(f"{where}: {element.text} is no boolean")
    elif where.endswith("/platform") and element.text == "windows":
        pass  # so EC2 sends it, whatever its model says
    elif shape.type_name == "string" and getattr(shape, "enum", None) and element.text and element.text not in shape.enum:
        faults.append(f"{where}: {element.text} is none of {shape.enum}")


for file in sorted(pathlib.Path(sys.argv[1]).glob("*.xml")):
    text = file.read_text()
    root = ET.fromstring(text)
    if plain(root.tag) == "Response":
        continue
    action = re.match("[A-Za-z]+", file.name).group()
    shape = model.operation_model(action).output_shape
    if shape is None:
        continue
    for child in list(root):
        if plain(child.tag) == "requestId":
            root.remove(child)
    check(file.name, root, shape)
    parser = botocore.parsers.create_parser("ec2")
    parser.parse({"status_code": 200, "headers": {}, "body": text.encode()}, shape)

# Eucalyptus's own parameters.
ours = {("RunInstances", "AddressingType"), ("RegisterImage", "Platform"), ("ImportInstance", "LaunchSpecification.KeyName")}


def wire_name(name, shape):
    query = shape.serialization.get("queryName")
    if query:
        return query
    name = shape.serialization.get("name", name)
    return name[0].upper() + name[1:]


def knows(shape, parts):
    if shape.type_name == "list":
        return parts[:1] == ["N"] and knows(shape.member, parts[1:])
    if shape.type_name != "structure":
        return not parts
    members = {wire_name(n, m): m for n, m in shape.members.items()}
    return bool(parts) and parts[0] in members and knows(members[parts[0]], parts[1:])


for line in sys.stdin:
    action, parameter = line.split()
    known = knows(model.operation_model(action).input_shape, parameter.split("."))
    if not known and (action, parameter) not in ours:
        faults.append(f"{action}: the parameter {parameter} is not in the model")

for fault in faults:
    print(fault)
sys.exit(1 if faults else 0)
