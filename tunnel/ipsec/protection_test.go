package ipsec

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/iotest"
)

// RFC 3602 section 4, cases 5 to 8: ESP with AES-CBC, up to the ICV, which they do not have. The texts end with their trailers.
func TestAESCBCVectors(t *testing.T) {
	const (
		key56 = "90d382b410eeba7ad938c46cec1a82bf"
		key78 = "0123456789abcdef0123456789abcdef"
	)
	for _, v := range []struct{ name, key, esp, text string }{
		{"case 5", key56, "0000432100000001e96e8c08ab465763fd098d45dd3ff893f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6",
			"08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637" + "0102030405060708090a0b0c0d0e0e01"},
		{"case 6", key56, "000043210000000869d08df7d203329db093fc4924e5bd80f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75",
			"0800b5e8a80a0500a69c083d0b660e00777777777777777777777777" + "01020201"},
		{"case 7", key78, "0000876500000002f4e765244f6407adf13dc1380f673f37773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
			"45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637" + "0102030405060708090a" + "0a04"},
		{"case 8", key78, "000087650000000585d47224b5f3dd5d2101d4ea8dffab2215b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb50f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc6d17a0decbb13892",
			"45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff" + "0102030405060708090a" + "0a04"},
	} {
		t.Run(v.name, func(t *testing.T) {
			auth := make([]byte, 20)
			p, err := opening(Transform{AES128CBC, HMACSHA1}, unhex(v.key), auth)
			if err != nil {
				t.Fatal(err)
			}
			esp := unhex(v.esp)
			esp = append(esp, p.(*encryptThenMAC).icvOf(esp)[:12]...)
			if !p.open(esp) {
				t.Fatal("not opened")
			}
			if text := esp[24 : len(esp)-12]; !bytes.Equal(text, unhex(v.text)) {
				t.Errorf("text %x", text)
			}
		})
	}
}

// draft-mcgrew-gcm-test-01 section 4, the cases without extended sequence numbers.
func TestAESGCMVectors(t *testing.T) {
	for _, v := range []struct{ name, key, nonce, text, header, sealed, icv string }{
		{"128 bits, long", "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
			"4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d001000001000000000000037369700963796265726369747902646b00000100010001", "0000a5f80000000a",
			"deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1", "83b70d3aa8bc6ee4c309e9d85a41ad4a"},
		{"128 bits, all zero", "00000000000000000000000000000000", "000000000000000000000000",
			"4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d6e6f707172737475767761626364656667686901020201", "0000000000000001",
			"4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3", "f821d496eeb096e98ad2b69e4799c71d"},
		{"128 bits, short", "7d773d00c144c525ac619d18c84a3f47", "d966426743457e9182443bc6", "01020201", "335467aeffffffff", "437f866b", "cb3f699fe9b0822bac961c4504bef270"},
		{"192 bits", "feffe9928665731c6d6a8f9467308308feffe9928665731c", "cafebabefacedbaddecaf888",
			"45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001", "0000a5f80000000a",
			"a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc77", "95457b9652037f5318027b5b4cd7a636"},
		{"256 bits", "abbccddef00112233445566778899aababbccddef00112233445566778899aab", "112233440102030405060708",
			"4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201", "4a2cbfe300000002",
			"ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e", "b335f4eecfdbf831824b4c4915956c96"},
	} {
		for _, e := range map[int][]Encryption{16: {AES128GCM8, AES128GCM12, AES128GCM16}, 24: {AES192GCM8, AES192GCM12, AES192GCM16}, 32: {AES256GCM8, AES256GCM12, AES256GCM16}}[len(v.key)/2] {
			t.Run(v.name+" "+encryptions[e].name, func(t *testing.T) {
				nonce := unhex(v.nonce)
				p, err := opening(Transform{Encryption: e}, append(unhex(v.key), nonce[:4]...), nil)
				if err != nil {
					t.Fatal(err)
				}
				esp := slices.Concat(unhex(v.header), nonce[4:], unhex(v.sealed), unhex(v.icv)[:encryptions[e].icv])
				if !p.open(esp) {
					t.Fatal("not opened")
				}
				if text := esp[16 : len(esp)-encryptions[e].icv]; !bytes.Equal(text, unhex(v.text)) {
					t.Errorf("text %x", text)
				}
			})
		}
	}
}

// RFC 3602 section 3: IVs of CBC are unpredictable; here, at least, all differ, also between SAs with equal keys.
func TestCBCNeverRepeatsAnIV(t *testing.T) {
	for _, name := range []string{"aes128-sha1", "3des-md5"} {
		seen := make(map[string]bool)
		for seed := range byte(4) {
			s := newSide(Config{Random: fixed(seed)})
			p, _ := pairs(name, 0x1000)
			s.install(t, epoch, p)
			for range 500 {
				esp := s.seal(t, server, "same")[0]
				iv := string(esp[espHeader : espHeader+p.Transform.layout().iv])
				if seen[iv] {
					t.Fatalf("%s: IV %x came twice", name, iv)
				}
				seen[iv] = true
			}
		}
	}
}

func TestFailingRandomnessDoesNotMakeIVsPredictable(t *testing.T) {
	var ivs [2]string
	for i := range ivs {
		s := newSide(Config{Random: iotest.ErrReader(errors.New("none"))})
		p, _ := pairs("aes128-sha1", 0x1000)
		s.install(t, epoch, p)
		ivs[i] = string(s.seal(t, server, "same")[0][8:24])
	}
	if ivs[0] == ivs[1] {
		t.Error("equal IVs")
	}
}

// RFC 4106 section 3.1: an IV must not come twice under one key; the sequence number does not.
func TestGCMTakesTheSequenceNumberForTheIV(t *testing.T) {
	c, _ := connected(t, "aes256gcm16")
	for i := range 3 {
		esp := c.seal(t, server, "text")[0]
		if want := []byte{0, 0, 0, 0, 0, 0, 0, byte(i + 1)}; !bytes.Equal(esp[8:16], want) {
			t.Errorf("IV %x, want %x", esp[8:16], want)
		}
	}
}

func TestTransformsHaveNamesAndKeySizes(t *testing.T) {
	for _, v := range []struct {
		name                  string
		transform             Transform
		encryption, integrity int
	}{
		{"aes128-sha1", Transform{AES128CBC, HMACSHA1}, 16, 20},
		{"aes256-sha256", Transform{AES256CBC, HMACSHA256}, 32, 32},
		{"AES192-SHA384", Transform{AES192CBC, HMACSHA384}, 24, 48},
		{"3des-md5", Transform{TripleDES, HMACMD5}, 24, 16},
		{"aes256-sha256_96", Transform{AES256CBC, HMACSHA256x96}, 32, 32},
		{"aes256-sha512", Transform{AES256CBC, HMACSHA512}, 32, 64},
		{"aes128gcm16", Transform{AES128GCM16, NoIntegrity}, 20, 0},
		{"aes256gcm8", Transform{AES256GCM8, NoIntegrity}, 36, 0},
		{"null-sha1", Transform{Null, HMACSHA1}, 0, 20},
	} {
		got, err := ParseTransform(v.name)
		if err != nil || got != v.transform {
			t.Errorf("%s: %v, %v", v.name, got, err)
		}
		if e, i := got.KeySizes(); e != v.encryption || i != v.integrity {
			t.Errorf("%s: key sizes %d, %d", v.name, e, i)
		}
	}
	for _, name := range allTransforms() {
		if got, err := ParseTransform(name); err != nil || got.String() != name {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// RFC 4303 section 3.2: no SA without integrity.
	for _, name := range []string{"", "aes128", "null", "sha1", "aes128gcm16-sha1", "des-md5", "aes128-sha1 ", "invalid"} {
		if _, err := ParseTransform(name); !errors.Is(err, errTransform) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if s := (Transform{99, 99}).String(); s != "invalid" {
		t.Error(s)
	}
	if e, i := (Transform{AES128CBC, NoIntegrity}).KeySizes(); e != 0 || i != 0 {
		t.Error("key sizes of no transform")
	}
}
