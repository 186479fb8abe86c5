"""Eligibility as anoncreds can state it, run in its own environment (`make peers`): one line in, one line out.

The nearest statement: two CL credentials under one link secret; plan active on the service day, birth day between
two bounds (four predicates); bill handle, hospital, service day and five keys disclosed. Left out, so that the
comparison favours anoncreds: the diagnosis in a signed set, the credential active in the epoch (its revocation
registry), the commitments and the binding to a policy row. Hidden: everything else.

Commands: ``prove`` and ``verify`` (answer: ``ok``), ``size`` (bytes of the presentation as JSON), ``version``.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import anoncreds

DAY = 46_161
PERSON = {
    "scheme": "a", "insutype": "390", "psn_type": "1101", "region": "310000", "sex": "1",
    "birth": str(29_360), "valid_from": "45000", "valid_to": "47000",
    "handle": str(2**127 + 12_345), "blind": "1",
}  # fmt: skip
ENCOUNTER = {
    "bill": "000102030405060708090a0b0c0d0e0f", "hospital": "hospital-a", "level": "3", "med_type": "21",
    "service_day": str(DAY), "diagnosis": "E11.900", "total": "1234500",
    **{f"class_{number}": str(100_000 * number) for number in range(1, 9)}, "blind": "1",
}  # fmt: skip
SHOWN = {
    "person": ("insutype", "region", "psn_type"),
    "encounter": ("bill", "hospital", "service_day", "level", "med_type"),
}
PREDICATES = (("valid_from", "<=", DAY), ("valid_to", ">=", DAY), ("birth", ">=", 20_000), ("birth", "<=", 40_000))


def issue(name: str, values: dict[str, str], secret: str) -> tuple[Any, Any, Any]:
    """(schema, definition, credential) of a fresh issuer."""
    schema = anoncreds.Schema.create(name, "1.0", f"did:example:{name}", list(values))
    definition, private, correctness = anoncreds.CredentialDefinition.create(
        f"schema:{name}", schema, f"did:example:{name}", "tag", "CL", support_revocation=False
    )
    offer = anoncreds.CredentialOffer.create(f"schema:{name}", f"definition:{name}", correctness)
    request, metadata = anoncreds.CredentialRequest.create("entropy", None, definition, secret, "link", offer)
    signed = anoncreds.Credential.create(definition, private, offer, request, values)
    return schema, definition, signed.process(metadata, secret, definition)


def main() -> None:
    """Set up, then answer commands until the input ends."""
    secret = anoncreds.create_link_secret()
    person, encounter = issue("person", PERSON, secret), issue("encounter", ENCOUNTER, secret)
    schemas = {"schema:person": person[0], "schema:encounter": encounter[0]}
    definitions = {"definition:person": person[1], "definition:encounter": encounter[1]}
    attributes, predicates = {}, {}
    for credential, names in SHOWN.items():
        for name in names:
            attributes[f"{credential}.{name}"] = {
                "name": name,
                "restrictions": [{"cred_def_id": f"definition:{credential}"}],
            }
    for number, (name, relation, bound) in enumerate(PREDICATES):
        predicates[f"p{number}"] = {
            "name": name,
            "p_type": relation,
            "p_value": bound,
            "restrictions": [{"cred_def_id": "definition:person"}],
        }
    request = anoncreds.PresentationRequest.load(
        {
            "name": "eligibility",
            "version": "1.0",
            "nonce": anoncreds.generate_nonce(),
            "requested_attributes": attributes,
            "requested_predicates": predicates,
        }
    )

    def prove() -> Any:
        chosen = anoncreds.PresentCredentials()
        chosen.add_attributes(person[2], *(f"person.{name}" for name in SHOWN["person"]))
        chosen.add_attributes(encounter[2], *(f"encounter.{name}" for name in SHOWN["encounter"]))
        chosen.add_predicates(person[2], *predicates)
        return anoncreds.Presentation.create(request, chosen, {}, secret, schemas, definitions)

    shown = prove()
    for line in sys.stdin:
        command = line.strip()
        if command == "prove":
            prove()
            answer = "ok"
        elif command == "verify":
            answer = "ok" if shown.verify(request, schemas, definitions) else "refused"
        elif command == "size":
            answer = str(len(shown.to_json().encode()))
        else:
            answer = version("anoncreds")
        print(answer, flush=True)


if __name__ == "__main__":
    main()
