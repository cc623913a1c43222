package l2tp

// An attribute is the Attribute Type of an AVP of vendor 0 (RFC 2661 section 4.4).
type attribute uint16

const (
	attrMessageType        attribute = 0
	attrResultCode         attribute = 1
	attrProtocolVersion    attribute = 2
	attrFramingCaps        attribute = 3
	attrBearerCaps         attribute = 4
	attrTieBreaker         attribute = 5
	attrFirmwareRevision   attribute = 6
	attrHostName           attribute = 7
	attrVendorName         attribute = 8
	attrAssignedTunnelID   attribute = 9
	attrReceiveWindowSize  attribute = 10
	attrChallenge          attribute = 11
	attrCauseCode          attribute = 12
	attrChallengeResponse  attribute = 13
	attrAssignedSessionID  attribute = 14
	attrCallSerialNumber   attribute = 15
	attrMinimumBPS         attribute = 16
	attrMaximumBPS         attribute = 17
	attrBearerType         attribute = 18
	attrFramingType        attribute = 19
	attrCalledNumber       attribute = 21
	attrCallingNumber      attribute = 22
	attrSubAddress         attribute = 23
	attrTxConnectSpeed     attribute = 24
	attrPhysicalChannelID  attribute = 25
	attrInitialRxConfReq   attribute = 26
	attrLastTxConfReq      attribute = 27
	attrLastRxConfReq      attribute = 28
	attrProxyAuthenType    attribute = 29
	attrProxyAuthenName    attribute = 30
	attrProxyChallenge     attribute = 31
	attrProxyAuthenID      attribute = 32
	attrProxyResponse      attribute = 33
	attrCallErrors         attribute = 34
	attrACCM               attribute = 35
	attrRandomVector       attribute = 36
	attrPrivateGroupID     attribute = 37
	attrRxConnectSpeed     attribute = 38
	attrSequencingRequired attribute = 39
	attrPPPDisconnectCause attribute = 46 // RFC 3145
)

// An avpKey names an AVP. Each vendor counts its own attributes, so the type alone says nothing (RFC 2661 section 4.1).
type avpKey struct {
	vendor    uint16
	attribute attribute
}

// An avpRule is what RFC 2661 sections 4.3 and 4.4 say of one AVP. Sizes are in bytes of the value, as it is when not hidden.
type avpRule struct {
	mandatory bool // M as we send it
	hideable  bool // H is allowed
	min, max  int
	nonZero   bool // a u16 that must not be 0
}

var avpRules = map[avpKey]avpRule{
	{vendorIETF, attrMessageType}:        {mandatory: true, min: 2, max: 2},
	{vendorIETF, attrResultCode}:         {mandatory: true, min: 2, max: maxAVPValue}, // RouterOS sends no error code
	{vendorIETF, attrProtocolVersion}:    {mandatory: true, min: 2, max: 2},
	{vendorIETF, attrFramingCaps}:        {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrBearerCaps}:         {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrTieBreaker}:         {min: 8, max: 8},
	{vendorIETF, attrFirmwareRevision}:   {hideable: true, min: 2, max: 2},
	{vendorIETF, attrHostName}:           {mandatory: true, min: 1, max: maxAVPValue},
	{vendorIETF, attrVendorName}:         {hideable: true, max: maxAVPValue},
	{vendorIETF, attrAssignedTunnelID}:   {mandatory: true, hideable: true, min: 2, max: 2, nonZero: true},
	{vendorIETF, attrReceiveWindowSize}:  {mandatory: true, min: 2, max: 2, nonZero: true},
	{vendorIETF, attrChallenge}:          {mandatory: true, hideable: true, min: 1, max: maxAVPValue},
	{vendorIETF, attrCauseCode}:          {mandatory: true, min: 3, max: maxAVPValue},
	{vendorIETF, attrChallengeResponse}:  {mandatory: true, hideable: true, min: 16, max: 16},
	{vendorIETF, attrAssignedSessionID}:  {mandatory: true, hideable: true, min: 2, max: 2, nonZero: true},
	{vendorIETF, attrCallSerialNumber}:   {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrMinimumBPS}:         {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrMaximumBPS}:         {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrBearerType}:         {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrFramingType}:        {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrCalledNumber}:       {mandatory: true, hideable: true, max: maxAVPValue},
	{vendorIETF, attrCallingNumber}:      {mandatory: true, hideable: true, max: maxAVPValue},
	{vendorIETF, attrSubAddress}:         {mandatory: true, hideable: true, max: maxAVPValue},
	{vendorIETF, attrTxConnectSpeed}:     {mandatory: true, hideable: true, min: 4, max: 4},
	{vendorIETF, attrPhysicalChannelID}:  {hideable: true, min: 4, max: 4},
	{vendorIETF, attrInitialRxConfReq}:   {hideable: true, max: maxAVPValue},
	{vendorIETF, attrLastTxConfReq}:      {hideable: true, max: maxAVPValue},
	{vendorIETF, attrLastRxConfReq}:      {hideable: true, max: maxAVPValue},
	{vendorIETF, attrProxyAuthenType}:    {hideable: true, min: 2, max: 2},
	{vendorIETF, attrProxyAuthenName}:    {hideable: true, max: maxAVPValue},
	{vendorIETF, attrProxyChallenge}:     {hideable: true, max: maxAVPValue},
	{vendorIETF, attrProxyAuthenID}:      {hideable: true, min: 2, max: 2},
	{vendorIETF, attrProxyResponse}:      {hideable: true, max: maxAVPValue},
	{vendorIETF, attrCallErrors}:         {mandatory: true, hideable: true, min: 26, max: 26},
	{vendorIETF, attrACCM}:               {mandatory: true, hideable: true, min: 10, max: 10},
	{vendorIETF, attrRandomVector}:       {mandatory: true, min: 1, max: maxAVPValue},
	{vendorIETF, attrPrivateGroupID}:     {hideable: true, max: maxAVPValue},
	{vendorIETF, attrRxConnectSpeed}:     {hideable: true, min: 4, max: 4},
	{vendorIETF, attrSequencingRequired}: {mandatory: true},
	{vendorIETF, attrPPPDisconnectCause}: {hideable: true, min: 5, max: maxAVPValue},
}
