{{- /* What every process of a region is told, whichever it is: who it is, its control plane, its store. */ -}}
{{- define "tidegate.regionEnv" -}}
{{- $external := .Values.store.external -}}
- name: TIDEGATE_NODE
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- { name: TIDEGATE_REGION, value: {{ .Values.region | quote }} }
- { name: TIDEGATE_HOST, value: {{ .Values.node.host | quote }} }
- { name: TIDEGATE_LOG_LEVEL, value: {{ .Values.node.logLevel | quote }} }
- { name: TIDEGATE_HEALTH_PORT, value: {{ .Values.node.healthPort | quote }} }
- { name: TIDEGATE_CONTROL_PLANE_URL, value: {{ .Values.controlPlane.url | quote }} }
{{- if .Values.controlPlane.publicKeySecret }}
- name: TIDEGATE_CONTROL_PLANE_PUBLIC_KEY
  valueFrom: { secretKeyRef: { name: {{ .Values.controlPlane.publicKeySecret | quote }}, key: public-key } }
{{- else }}
- { name: TIDEGATE_CONTROL_PLANE_PUBLIC_KEY, value: {{ .Values.controlPlane.publicKey | quote }} }
{{- end }}
{{- if .Values.controlPlane.caSecret }}
- { name: TIDEGATE_CONTROL_PLANE_CA_FILE, value: /etc/tidegate/control-plane/ca.crt }
{{- end }}
- name: TIDEGATE_REGION_CREDENTIAL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.credential.existingSecret | default (printf "%s-credential" (include "tidegate.fullname" .)) | quote }}
      key: {{ ternary .Values.credential.key "credential" (ne .Values.credential.existingSecret "") | quote }}
{{- if .Values.store.bundled.enabled }}
- name: STORE_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ include "tidegate.storeSecret" . | quote }}, key: password } }
- { name: TIDEGATE_REDIS_URL, value: "redis://:$(STORE_PASSWORD)@{{ include "tidegate.store" . }}:6379/0" }
{{- else }}
- name: TIDEGATE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ $external.existingSecret | default (printf "%s-store-url" (include "tidegate.fullname" .)) | quote }}
      key: {{ ternary $external.key "url" (ne $external.existingSecret "") | quote }}
- { name: TIDEGATE_REDIS_SHAPE, value: {{ $external.shape | quote }} }
{{- with $external.sentinels }}
- { name: TIDEGATE_REDIS_SENTINELS, value: {{ join "," . | quote }} }
- { name: TIDEGATE_REDIS_MASTER_NAME, value: {{ $external.masterName | quote }} }
{{- end }}
{{- with $external.sentinelSecret }}
- name: TIDEGATE_REDIS_SENTINEL_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ . | quote }}, key: password } }
{{- end }}
{{- with $external.clusterNodes }}
- { name: TIDEGATE_REDIS_CLUSTER_NODES, value: {{ join "," . | quote }} }
{{- end }}
{{- if $external.tlsSecret }}
- { name: TIDEGATE_REDIS_CA_FILE, value: /etc/tidegate/store/ca.crt }
{{- if $external.clientCertificate }}
- { name: TIDEGATE_REDIS_CERT_FILE, value: /etc/tidegate/store/tls.crt }
- { name: TIDEGATE_REDIS_KEY_FILE, value: /etc/tidegate/store/tls.key }
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The certificate that a process serves with, of (tls). */ -}}
{{- define "tidegate.tlsEnv" -}}
{{- if .existingSecret }}
- { name: TIDEGATE_TLS_CERT_FILE, value: /etc/tidegate/tls/tls.crt }
- { name: TIDEGATE_TLS_KEY_FILE, value: /etc/tidegate/tls/tls.key }
{{- with .clientCAKey }}
- { name: TIDEGATE_TLS_CLIENT_CA_FILE, value: "/etc/tidegate/tls/{{ . }}" }
{{- end }}
{{- end }}
{{- end -}}

{{- /* The files behind this, and where a process writes: its snapshot outlives the container, not the pod. */ -}}
{{- define "tidegate.regionMounts" -}}
- { name: state, mountPath: /var/lib/tidegate }
- { name: tmp, mountPath: /tmp }
{{- if .Values.controlPlane.caSecret }}
- { name: control-plane-ca, mountPath: /etc/tidegate/control-plane, readOnly: true }
{{- end }}
{{- if and (not .Values.store.bundled.enabled) .Values.store.external.tlsSecret }}
- { name: store-tls, mountPath: /etc/tidegate/store, readOnly: true }
{{- end }}
{{- end -}}

{{- define "tidegate.regionVolumes" -}}
- { name: state, emptyDir: { sizeLimit: 1Gi } }
- { name: tmp, emptyDir: { sizeLimit: 64Mi } }
{{- with .Values.controlPlane.caSecret }}
- { name: control-plane-ca, secret: { secretName: {{ . | quote }}, defaultMode: 0440 } }
{{- end }}
{{- if and (not .Values.store.bundled.enabled) .Values.store.external.tlsSecret }}
- { name: store-tls, secret: { secretName: {{ .Values.store.external.tlsSecret | quote }}, defaultMode: 0440 } }
{{- end }}
{{- end -}}

{{- /* Labels and annotations of a process's pods, of (root, name, given: what else they must follow). */ -}}
{{- define "tidegate.regionPodMetadata" -}}
{{- $more := merge (dict "tidegate.region" .root.Values.region) (.root.Values.podLabels | default dict) }}
labels: {{- include "tidegate.labelsOf" (dict "root" .root "name" .name "more" $more) | nindent 2 }}
annotations:
  {{- $external := .root.Values.store.external }}
  {{- $given := list .root.Values.credential.value $external.url .given }}
  {{- $named := list .root.Values.credential.existingSecret .root.Values.controlPlane.publicKeySecret .root.Values.store.bundled.existingSecret $external.existingSecret $external.sentinelSecret }}
  {{- $ours := dict "checksum/secrets" (include "tidegate.checksum" (dict "root" .root "given" $given "secrets" $named)) }}
  {{- merge $ours (.root.Values.podAnnotations | default dict) | toYaml | nindent 2 }}
{{- end -}}

{{- /* The three probes, asked at the health port in plain HTTP. */ -}}
{{- define "tidegate.probes" -}}
startupProbe: {{- include "tidegate.probe" (dict "probe" .Values.startupProbe "path" "/healthz" "port" "health") | nindent 2 }}
livenessProbe: {{- include "tidegate.probe" (dict "probe" .Values.livenessProbe "path" "/healthz" "port" "health") | nindent 2 }}
readinessProbe: {{- include "tidegate.probe" (dict "probe" .Values.readinessProbe "path" "/readyz" "port" "health") | nindent 2 }}
{{- end -}}

{{- /* What a process of (root, settings) may reach: DNS, the store, and by port what egressPorts and settings name. */ -}}
{{- define "tidegate.regionEgress" -}}
{{- $process := . -}}
{{- with .root }}
- ports: [{ port: 53, protocol: UDP }, { port: 53, protocol: TCP }]
{{- if .Values.store.bundled.enabled }}
- to:
    - podSelector:
        matchLabels: {{- include "tidegate.storeSelector" . | nindent 10 }}
  ports: [{ port: 6379 }]
{{- else }}
- to: {{- include "tidegate.anywhere" . | nindent 4 }}
  ports:
    {{- range include "tidegate.storePorts" . | fromJsonArray }}
    - port: {{ . }}
    {{- end }}
{{- end }}
# the control plane, other regions, a collector of traces, servers that load is pulled from
- to: {{- include "tidegate.anywhere" . | nindent 4 }}
  ports:
    {{- range include "tidegate.egressPorts" $process | fromJsonArray }}
    - port: {{ . }}
    {{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Who may come, besides whom networkPolicy.from names: the pods of `helm test`; where it names nobody, the namespace. */ -}}
{{- define "tidegate.regionFrom" -}}
{{- if .Values.networkPolicy.from }}
{{- toYaml .Values.networkPolicy.from }}
- podSelector:
    matchLabels: {{- include "tidegate.testSelector" . | nindent 6 }}
{{- else }}
- podSelector: {}
{{- end }}
{{- end -}}
