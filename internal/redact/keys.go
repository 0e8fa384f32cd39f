package redact

import "strings"

// class is what a member's name says of its value.
type class int

const (
	ordinary  class = iota
	secret          // the value is one
	counted         // the text is one, a number is a count: token, refresh_token
	suspected       // the value is one when it looks random: key, auth, session
)

// names are written in small letters without separators, so that api_key,
// apiKey, API-KEY and apikey are one.
var names = map[string]class{}

// endings are whole words at the end of a name: database_password, stripeApiKey.
var endings = map[string]class{}

// harmless are names that an ending would hit, and that hold no secret.
var harmless = map[string]bool{}

func init() {
	for c, list := range map[class]string{
		secret: `authorization proxyauthorization cookie setcookie password passwd pwd passphrase secret apikey adminkey
			xapikey clientsecret privatekey secretkey secretaccesskey signingkey encryptionkey sessionkey masterkey accesskey
			mnemonic seedphrase recoveryphrase xprv nsec macaroon adminmacaroon invoicemacaroon preimage paymentpreimage rpreimage
			credential credentials bearer otp totp cvv cvc webhooksecret cashutoken lndconnect privkey sshkey`,
		counted:   `token accesstoken refreshtoken idtoken authtoken bearertoken sessiontoken xauthtoken csrftoken xcsrftoken apitoken`,
		suspected: `key auth session sessionid sid seed pass cred creds jwt`,
	} {
		for _, n := range strings.Fields(list) {
			names[n] = c
		}
	}
	for c, list := range map[class]string{
		secret: `secret password passwd passphrase apikey adminkey privatekey secretkey signingkey encryptionkey masterkey
			accesskey macaroon preimage mnemonic credentials cookie`,
		counted:   `token`,
		suspected: `key auth`,
	} {
		for _, n := range strings.Fields(list) {
			endings[n] = c
		}
	}
	for _, n := range strings.Fields(`pagetoken nextpagetoken prevpagetoken previouspagetoken synctoken nextsynctoken continuationtoken
		cursortoken nexttoken publickey pubkey idempotencykey cachekey primarykey foreignkey partitionkey sortkey dedupekey
		objectkey routingkey lookupkey translationkey keyid accesskeyid nodekey nodepubkey verifykey`) {
		harmless[n] = true
	}
}

// classify reads a name in any spelling.
func classify(name string) class {
	words := split(name)
	if len(words) == 0 {
		return ordinary
	}
	whole := strings.Join(words, "")
	if harmless[whole] {
		return ordinary
	}
	if c, ok := names[whole]; ok {
		return c
	}
	last := words[len(words)-1]
	if n := len(words); n >= 2 {
		if harmless[words[n-2]+last] {
			return ordinary
		}
		if c, ok := endings[words[n-2]+last]; ok {
			return c
		}
	}
	return endings[last]
}

// split cuts a name at what is neither letter nor digit and at capitals, into
// small letters: XApiKey, x-api-key and x_api_key are x, api, key.
func split(name string) []string {
	if len(name) > maxName {
		name = name[len(name)-maxName:]
	}
	var words []string
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			words = append(words, b.String())
			b.Reset()
		}
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case upperCase(c):
			before := i > 0 && (lowerCase(name[i-1]) || digit(name[i-1]))
			after := i > 0 && upperCase(name[i-1]) && i+1 < len(name) && lowerCase(name[i+1])
			if before || after {
				flush()
			}
			b.WriteByte(c + 'a' - 'A')
		case lowerCase(c), digit(c):
			b.WriteByte(c)
		default:
			flush()
		}
	}
	flush()
	return words
}

// maxName is how much of a name is looked at, from its end.
const maxName = 80
