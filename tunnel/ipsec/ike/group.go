package ike

import (
	"crypto/ecdh"
	"errors"
	"io"
	"math/big"
)

var errPublicValue = errors.New("ike: public value of the peer is not valid")

// A group is a Diffie-Hellman group (RFC 2409 section 6, RFC 3526, RFC 5903).
type group interface {
	// generate draws a private value and returns it with the public one, as a KE payload holds it.
	generate(random io.Reader) (secret, error)
}

// A secret is the private value of one exchange.
type secret interface {
	public() []byte
	// agree returns g^xy of the peer's public value, or errPublicValue.
	agree(peer []byte) ([]byte, error)
}

// A modp is a group of integers modulo a safe prime.
type modp struct {
	prime *big.Int
	size  int // bytes of the prime
}

func newMODP(hex string) *modp {
	p, ok := new(big.Int).SetString(hex, 16)
	if !ok {
		panic("ike: prime is no number")
	}
	return &modp{p, (p.BitLen() + 7) / 8}
}

// privateSize is the length of private values in bytes: 384 bits, more than twice the strength of any group here (RFC 3526 section 8).
const privateSize = 48

type modpSecret struct {
	group *modp
	x     *big.Int
	gx    []byte
}

// math/big is not constant-time. Each private value is drawn for one exchange and used for two exponentiations, of which an observer
// can choose no more than one base: nothing accumulates that timing could reveal.
func (g *modp) generate(random io.Reader) (secret, error) {
	var b [privateSize]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, err
	}
	b[0] |= 0x80 // never a small number
	x := new(big.Int).SetBytes(b[:])
	gx := new(big.Int).Exp(big.NewInt(2), x, g.prime)
	return &modpSecret{g, x, gx.FillBytes(make([]byte, g.size))}, nil
}

func (s *modpSecret) public() []byte { return s.gx }

func (s *modpSecret) agree(peer []byte) ([]byte, error) {
	if len(peer) == 0 || len(peer) > s.group.size { // a shorter one lacks its leading zeros
		return nil, errPublicValue
	}
	y := new(big.Int).SetBytes(peer)
	// 0, 1 and -1 give a result that anyone knows (RFC 2631 section 2.1.5).
	if y.Cmp(big.NewInt(1)) <= 0 || y.Cmp(new(big.Int).Sub(s.group.prime, big.NewInt(1))) >= 0 {
		return nil, errPublicValue
	}
	return y.Exp(y, s.x, s.group.prime).FillBytes(make([]byte, s.group.size)), nil
}

// An ecp is an elliptic curve. KE holds x and y, g^xy is x alone (RFC 5903 sections 7 and 9).
type ecp struct {
	curve ecdh.Curve
	size  int  // bytes of a private value
	mask  byte // bits of its first byte that can be set
}

var (
	ecpP256 = &ecp{ecdh.P256(), 32, 0xff}
	ecpP384 = &ecp{ecdh.P384(), 48, 0xff}
	ecpP521 = &ecp{ecdh.P521(), 66, 0x01}
)

type ecpSecret struct{ key *ecdh.PrivateKey }

// generate draws the private value itself, since ecdh does not use the source that it is given.
func (g *ecp) generate(random io.Reader) (secret, error) {
	for range 16 {
		b := make([]byte, g.size)
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, err
		}
		b[0] &= g.mask
		if key, err := g.curve.NewPrivateKey(b); err == nil { // fails for 0 and numbers past the order: for P-521 every other time
			return &ecpSecret{key}, nil
		}
	}
	return nil, errors.New("ike: random source gives no valid private value")
}

const uncompressed = 4 // first byte of a point in SEC 1

func (s *ecpSecret) public() []byte { return s.key.PublicKey().Bytes()[1:] }

func (s *ecpSecret) agree(peer []byte) ([]byte, error) {
	key, err := s.key.Curve().NewPublicKey(append([]byte{uncompressed}, peer...))
	if err != nil {
		return nil, errPublicValue
	}
	shared, err := s.key.ECDH(key)
	if err != nil {
		return nil, errPublicValue
	}
	return shared, nil
}

// The primes 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) pi) + c) of RFC 2409 section 6.2 and RFC 3526.
const (
	modp1024 = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF"
	modp1536 = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF"
	modp2048 = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF"
	modp3072 = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
		"A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
		"D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF"
	modp4096 = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
		"A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
		"D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7" +
		"88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D99B2964FA090C3A2" +
		"233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA993B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF"
)
