"""Seals and opens ESP packets with scapy's IPsec layer, for interop_test.go.

Reads one JSON object a line from stdin and answers with one on stdout. What
scapy itself has not is put together here from OpenSSL's primitives (the
cryptography package): GMAC, AES-XCBC, and the high half of an extended sequence
number under a separate integrity algorithm.
"""
import json
import sys

from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.config import conf
from scapy.layers import ipsec
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import raw

conf.verb = 0

# scapy's usual AES-GCM always has tags of 16 bytes; the same class over the
# older interface of the cryptography package has shorter ones.
ipsec.CRYPT_ALGOS["AES-GCM-SHORT"] = ipsec.CryptAlgo(
    "AES-GCM-SHORT", cipher=algorithms.AES, mode=modes.GCM, block_size=1, iv_size=8, icv_size=16,
    salt_size=4, key_size=(16, 24, 32), format_mode_iv=lambda sa, iv, **kw: sa.crypt_salt + iv)


class GMAC(ipsec.CryptAlgo):
    """AES-GMAC for ESP (RFC 4543 section 3.3)."""

    def __init__(self):
        super().__init__("AES-GMAC", cipher=algorithms.AES, mode=None, block_size=1, iv_size=8,
                         icv_size=16, salt_size=4, key_size=(16, 24, 32))
        self.is_aead = True

    def aad(self, esp, esn_en, esn):
        head = esp.spi.to_bytes(4, "big")
        return head + (esn.to_bytes(4, "big") if esn_en else b"") + esp.seq.to_bytes(4, "big")

    def encrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        text = esp.iv + esp.data_for_encryption()
        tag = AESGCM(key).encrypt(sa.crypt_salt + esp.iv, b"", self.aad(esp, esn_en, esn) + text)
        return ipsec.ESP(spi=esp.spi, seq=esp.seq, data=text + tag)

    def decrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        text, tag = esp.data[:-16], esp.data[-16:]
        AESGCM(key).decrypt(sa.crypt_salt + text[:8], tag, self.aad(esp, esn_en, esn) + text)
        pad, nh = text[-2], text[-1]
        return ipsec._ESPPlain(spi=esp.spi, seq=esp.seq, iv=text[:8], data=text[8:len(text) - pad - 2],
                               padding=text[len(text) - pad - 2:-2], padlen=pad, nh=nh, icv=tag)


ipsec.CRYPT_ALGOS["AES-GMAC"] = GMAC()


class XCBC:
    """AES-XCBC-MAC (RFC 3566)."""

    def __init__(self, key):
        self.block = Cipher(algorithms.AES(key), modes.ECB(), default_backend())
        keys = [self.ecb(bytes([n] * 16)) for n in (1, 2, 3)]
        self.block = Cipher(algorithms.AES(keys[0]), modes.ECB(), default_backend())
        self.k2, self.k3, self.data = keys[1], keys[2], b""

    def ecb(self, b):
        e = self.block.encryptor()
        return e.update(b) + e.finalize()

    def update(self, b):
        self.data += b

    def finalize(self):
        e, n = bytes(16), max(1, -(-len(self.data) // 16))
        blocks = [self.data[16 * i:16 * i + 16] for i in range(n)]
        for b in blocks[:-1]:
            e = self.ecb(bytes(x ^ y for x, y in zip(b, e)))
        last, k = blocks[-1], self.k2
        if len(last) < 16:
            last, k = (last + b"\x80").ljust(16, b"\0"), self.k3
        return self.ecb(bytes(x ^ y ^ z for x, y, z in zip(last, e, k)))


class Trailed:
    """A MAC that takes the high half of the sequence number last (RFC 4303 section 2.2.1)."""

    def __init__(self, mac, trailer):
        self.mac, self.trailer = mac, trailer
        self.update = mac.update

    def finalize(self):
        self.mac.update(self.trailer)
        return self.mac.finalize()


class Auth(ipsec.AuthAlgo):
    def __init__(self, name, trailer):
        base = ipsec.AUTH_ALGOS.get(name)
        if base is None:
            super().__init__(name, mac=XCBC, digestmod=None, icv_size=12)
        else:
            super().__init__(name, mac=base.mac, digestmod=base.digestmod, icv_size=base.icv_size)
        self.trailer = trailer

    def new_mac(self, key):
        mac = XCBC(key) if self.mac is XCBC else super().new_mac(key)
        return Trailed(mac, self.trailer) if self.trailer else mac


def association(q):
    v6 = q["outer6"]
    tunnel = None
    if q["tunnel"]:
        tunnel = IPv6(src=q["src"], dst=q["dst"]) if v6 else IP(src=q["src"], dst=q["dst"])
    sa = ipsec.SecurityAssociation(
        ipsec.ESP, spi=q["spi"], crypt_algo=q["encr"], crypt_key=bytes.fromhex(q["enckey"]) or None,
        crypt_icv_size=q["icv"] or None, tunnel_header=tunnel,
        nat_t_header=UDP(sport=4500, dport=4500) if q["encap"] else None, esn_en=q["esn"], esn=q["seq"] >> 32)
    if q["integ"]:
        sa.auth_algo = Auth(q["integ"], (q["seq"] >> 32).to_bytes(4, "big") if q["esn"] else b"")
        sa.auth_key = bytes.fromhex(q["integkey"])
    return sa


def answer(q):
    sa = association(q)
    data = bytes.fromhex(q["packet"])
    packet = IPv6(data) if data[0] >> 4 == 6 else IP(data)
    if q["op"] == "seal":
        return raw(sa.encrypt(packet, seq_num=q["seq"] & 0xFFFFFFFF))
    return raw(sa.decrypt(packet))


for line in sys.stdin:
    try:
        reply = {"packet": answer(json.loads(line)).hex()}
    except Exception as e:  # the test shows it
        reply = {"error": "%s: %s" % (type(e).__name__, e)}
    print(json.dumps(reply), flush=True)
